"""Rewards answers by written principles: a model on an OpenAI-compatible server says which ones each answer keeps."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from turnwise_training.chat_server import ChatServer
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.http_reward import FIRST_PAUSE_S
from turnwise_training.policy import PolicyPrinciple, read_policy

MAX_ANSWER_TOKENS = 8
QUESTION = (
    "Here is a conversation with an assistant.\n\n{conversation}\n\n"
    "Principle: {principle}\n\n"
    "Does the assistant's last reply keep to this principle? Answer with one word, yes or no."
)
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class PrinciplesReward:
    """The weighted share of a policy's principles that an answer keeps, 0 to 1.

    A verdict that is neither yes nor no counts as half and in `unclear`.
    """

    def __init__(self, policy: Path, judge: str, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        """Take a policy file and the base URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.

        Raises ConfigurationError for a policy that cannot be read.
        """
        if not judge:
            raise ConfigurationError(
                f"principles of {policy}: `judge` must be the URL of the model that judges"
            )
        self._principles = read_policy(policy).principles
        self._judge = ChatServer(judge, first_pause_s=first_pause_s)
        self.unclear = 0
        """Verdicts so far that could not be read."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return each answer's share; raises RewardError where most verdicts are neither yes nor no."""
        if not episodes:
            return []
        questions = [_question(episode, principle) for episode in episodes for principle in self._principles]
        choices = self._judge.choices([_body(question) for question in questions])
        answers = [str(choice["message"]["content"]) for choice in choices]
        verdicts = list(map(_verdict, answers))
        self._count_unclear(verdicts, answers)
        weights = [principle.weight for principle in self._principles]
        shares = [weight * verdict for weight, verdict in zip(weights * len(episodes), verdicts, strict=True)]
        size = len(weights)
        return [sum(shares[row * size : (row + 1) * size]) / sum(weights) for row in range(len(episodes))]

    def _count_unclear(self, verdicts: Sequence[float], answers: Sequence[str]) -> None:
        unclear = [answer for verdict, answer in zip(verdicts, answers, strict=True) if verdict == 0.5]
        self.unclear += len(unclear)
        if 2 * len(unclear) > len(verdicts):
            raise RewardError(
                f"{self._judge.url} answered neither yes nor no {len(unclear)} times of {len(verdicts)}, "
                f"as in {unclear[0]!r}"
            )
        if unclear:
            sys.stderr.write(
                f"{self._judge.url}: {len(unclear)} of {len(verdicts)} verdicts were neither yes nor no\n"
            )


def _question(episode: Episode, principle: PolicyPrinciple) -> str:
    said = [*episode.prompt.prompt, {"role": "assistant", "content": episode.reply}]
    conversation = "\n\n".join(f"{message['role']}: {message['content']}" for message in said)
    return QUESTION.format(conversation=conversation, principle=principle.text)


def _body(question: str) -> dict[str, object]:
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "temperature": 0, "max_tokens": MAX_ANSWER_TOKENS}


def _verdict(answer: str) -> float:
    """Return 1 for yes, 0 for no and 1/2 for anything else."""
    match = _VERDICT.match(answer)
    return 0.5 if match is None else float(match[1].lower() == "yes")
