"""A model's own judgement by the principles: reply, critique, revision, and which of two replies is better.

Sources: Bai et al., "Constitutional AI: Harmlessness from AI Feedback", arXiv 2212.08073, sections 3.1 (critiques and
revisions for fine-tuning) and 4.1 (preferences from the probabilities of the answers' letters). Each comparison is
asked in both orders, because models favour a place (Zheng et al., arXiv 2306.05685, section 3.4).
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from turnwise_training.constitution.assistants import Assistant, Letters, Messages
from turnwise_training.constitution.lessons import Lesson, demonstration, preference, says
from turnwise_training.constitution.requests import Request
from turnwise_training.policy import Policy, PolicyPrinciple
from turnwise_training.rollout import rollout_key

LONGEST_REQUEST = 2000
"""Characters; a longer request would be repeated too often to fit a small context."""
COMPARISON = (
    "A person wrote this to an assistant:\n\n{asked}\n\nReply A:\n\n{a}\n\nReply B:\n\n{b}\n\n"
    "{compare} Answer with one letter, A or B."
)
REVISION = "{revision} Write the new reply only."

Outcome = Literal["reply", "other", "tie", "disagreement", "unclear", "equal"]
"""Which of two replies is better, or why the pair is dropped: preferred too weakly, another one preferred when the
order changed, neither letter likely, or nothing to compare."""


@dataclass(frozen=True)
class Task:
    """One principle to be tried on one request."""

    principle: PolicyPrinciple
    request: Request

    def key(self, *parts: object) -> str:
        """Return what the task is recorded under, given all else that its outcome depends on."""
        text = repr((*parts, self.principle, self.request.text))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Opinion:
    """What the models said of one task, whole."""

    reply: str
    other: str
    """The revision or, of a principle without a critique, a second reply."""
    is_revision: bool
    probability: float | None
    """That the first reply is better, the mean of both orders; None where it could not be read."""
    outcome: Outcome
    exchanges: list[dict[str, object]]
    """Every question as it was asked, with its answer: a text, or the log-probabilities of both letters."""


def tasks(policy: Policy, requests: Sequence[Request], *, most: int, seed: int) -> dict[str, list[Task]]:
    """Return at most so many tasks of each principle, by its id.

    A principle is tried on the requests of its categories; one that names none, on harmless ones.
    """
    chosen = {}
    for principle in policy.principles:
        fitting = [
            request
            for request in requests
            if len(request.text) <= LONGEST_REQUEST
            and (
                request.category.id in principle.categories if request.category else not principle.categories
            )
        ]
        draw = random.Random(f"{principle.id} {seed}")
        chosen[principle.id] = [
            Task(principle, each) for each in draw.sample(fitting, min(most, len(fitting)))
        ]
    return chosen


def ask(
    batch: Sequence[Task], assistant: Assistant, judge: Assistant, *, least: float, seed: int
) -> list[Opinion]:
    """Return the opinions on tasks of one principle; a comparison counts from a mean probability of `least`."""
    principle = batch[0].principle
    exchanges: list[list[dict[str, object]]] = [[] for _ in batch]

    def replies(conversations: Sequence[Messages], step: int) -> list[str]:
        keys = [rollout_key(seed, step, int(task.key()[:15], 16)) for task in batch]
        found = assistant.replies(conversations, keys)
        _note(exchanges, conversations, found)
        return found

    prompts = [says(task.request.text) for task in batch]
    firsts = replies(prompts, 0)
    if principle.critique and principle.revision:
        criticising = [_then(*each, principle.critique) for each in zip(prompts, firsts, strict=True)]
        critiques = replies(criticising, 1)
        revision = REVISION.format(revision=principle.revision)
        others = replies([_then(*each, revision) for each in zip(criticising, critiques, strict=True)], 2)
    else:
        others = replies(prompts, 3)
    orders = [
        [_comparison(task, a, b) for task, a, b in zip(batch, one, two, strict=True)]
        for one, two in ((firsts, others), (others, firsts))
    ]
    forward, backward = (judge.letters(order) for order in orders)
    for order, letters in zip(orders, (forward, backward), strict=True):
        _note(exchanges, order, letters)
    is_revision = bool(principle.critique and principle.revision)
    return [
        Opinion(
            first, other, is_revision, *verdict(one, two, least=least, same=not other or first == other), said
        )
        for first, other, one, two, said in zip(firsts, others, forward, backward, exchanges, strict=True)
    ]


def verdict(
    forward: Letters, backward: Letters, *, least: float, same: bool = False
) -> tuple[float | None, Outcome]:
    """Return the probability that the first reply is better, and what follows from it.

    In `forward` the first reply is A, in `backward` it is B.
    """
    if same:
        return None, "equal"
    if max(forward) == -math.inf or max(backward) == -math.inf:
        return None, "unclear"
    one, two = _first_share(forward), 1 - _first_share(backward)
    mean = (one + two) / 2
    if (one > 0.5) != (two > 0.5):
        return mean, "disagreement"
    if max(mean, 1 - mean) < least:
        return mean, "tie"
    return mean, "reply" if mean > 0.5 else "other"


def opinion_lessons(task: Task, opinion: Opinion, labeler: str) -> list[Lesson]:
    """Return what an opinion teaches: the comparison and, where the revision was better, the revision."""
    request, principle = task.request, task.principle.id
    category = request.category.id if request.category else None
    lessons = []
    if opinion.outcome == "other" and opinion.is_revision:
        row = demonstration(request.text, opinion.other)
        lessons.append(Lesson(row, "revision", request.source, category, principle))
    if opinion.outcome in ("reply", "other"):
        chosen, rejected = opinion.reply, opinion.other
        if opinion.outcome == "other":
            chosen, rejected = rejected, chosen
        pair = preference(request.text, chosen=chosen, rejected=rejected, labeler=labeler)
        lessons.append(Lesson(pair, "comparison", request.source, category, principle))
    return lessons


def _first_share(letters: Letters) -> float:
    """Return the probability of A where only A and B are possible."""
    return 1 / (1 + math.exp(min(letters[1] - letters[0], 700.0)))


def _then(conversation: Messages, reply: str, asked: str) -> Messages:
    return (*conversation, {"role": "assistant", "content": reply}, {"role": "user", "content": asked})


def _comparison(task: Task, a: str, b: str) -> Messages:
    question = COMPARISON.format(asked=task.request.text, a=a, b=b, compare=task.principle.compare)
    return says(question)


def _note(
    exchanges: Sequence[list[dict[str, object]]], asked: Sequence[Messages], answers: Sequence[str | Letters]
) -> None:
    """Add a question and its answer to each record."""
    for record, messages, answer in zip(exchanges, asked, answers, strict=True):
        said = answer if isinstance(answer, str) else dict(zip("AB", map(_number, answer), strict=True))
        record.append({"messages": messages, "answer": said})


def _number(log_probability: float) -> float | None:
    """Return what JSON has a word for."""
    return None if log_probability == -math.inf else log_probability
