"""Rewards answers by written principles: a model on an OpenAI-compatible server says which ones each answer keeps."""

import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import yaml

from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.http_reward import FIRST_PAUSE_S, TIMEOUT_S, ask

CONCURRENT_REQUESTS = 8
MAX_ANSWER_TOKENS = 8
QUESTION = (
    "Here is a conversation with an assistant.\n\n{conversation}\n\n"
    "Principle: {principle}\n\n"
    "Does the assistant's last reply keep to this principle? Answer with one word, yes or no."
)
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Principle:
    """One rule of a policy file."""

    text: str
    weight: float


def read_principles(path: Path) -> list[Principle]:
    """Return the `principles` of a policy file: each a `text` and, optionally, a `weight`.

    Raises ConfigurationError naming the file and the entry.
    """
    try:
        policy = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read as a policy file: {error}") from error
    entries = policy.get("principles") if isinstance(policy, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path} holds no list of `principles`")
    return [_read_principle(entry, f"{path}: principle {number}") for number, entry in enumerate(entries, 1)]


def _read_principle(entry: object, where: str) -> Principle:
    text, weight = (entry.get("text"), entry.get("weight", 1.0)) if isinstance(entry, dict) else (None, 1.0)
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{where} needs a `text`")
    if type(weight) not in (int, float) or weight <= 0:
        raise ConfigurationError(f"{where} needs a `weight` over 0, not {weight!r}")
    return Principle(text.strip(), float(weight))


class PrinciplesReward:
    """The weighted share of a policy's principles that an answer keeps, 0 to 1.

    A verdict that is neither yes nor no counts as half and in `unclear`.
    """

    def __init__(self, policy: Path, judge: str, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        """Take a policy file and the base URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.

        A key in the environment variable OPENAI_API_KEY is sent to it.
        """
        if not judge:
            raise ConfigurationError(
                f"principles of {policy}: `judge` must be the URL of the model that judges"
            )
        self._principles = read_principles(policy)
        self._judge = judge.rstrip("/")
        self._first_pause_s = first_pause_s
        self.unclear = 0
        """Verdicts so far that could not be read."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return each answer's share; raises RewardError where most verdicts are neither yes nor no."""
        if not episodes:
            return []
        questions = [_question(episode, principle) for episode in episodes for principle in self._principles]
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx2.Client(timeout=TIMEOUT_S, headers=headers) as client,
            ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool,
        ):
            model = self._model_name(client)
            answers = list(pool.map(lambda question: self._answer(client, model, question), questions))
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
                f"{self._judge} answered neither yes nor no {len(unclear)} times of {len(verdicts)}, "
                f"as in {unclear[0]!r}"
            )
        if unclear:
            sys.stderr.write(
                f"{self._judge}: {len(unclear)} of {len(verdicts)} verdicts were neither yes nor no\n"
            )

    def _answer(self, client: httpx2.Client, model: str, question: str) -> str:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        url = f"{self._judge}/chat/completions"
        answer = ask(client, "POST", url, body, first_pause_s=self._first_pause_s)
        match answer:
            case {"choices": [{"message": {"content": str(content)}}, *_]}:
                return content
        raise RewardError(f"{url} answered no chat completion: {answer!r:.200}")

    def _model_name(self, client: httpx2.Client) -> str:
        """Return the first model the server lists."""
        url = f"{self._judge}/models"
        answer = ask(client, "GET", url, first_pause_s=self._first_pause_s)
        match answer:
            case {"data": [{"id": str(name)}, *_]}:
                return name
        raise RewardError(f"{url} lists no model: {answer!r:.200}")


def _question(episode: Episode, principle: Principle) -> str:
    said = [*episode.prompt.prompt, {"role": "assistant", "content": episode.reply}]
    conversation = "\n\n".join(f"{message['role']}: {message['content']}" for message in said)
    return QUESTION.format(conversation=conversation, principle=principle.text)


def _verdict(answer: str) -> float:
    """Return 1 for yes, 0 for no and 1/2 for anything else."""
    match = _VERDICT.match(answer)
    return 0.5 if match is None else float(match[1].lower() == "yes")
