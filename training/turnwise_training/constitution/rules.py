"""Demonstrations and preferences that follow from the policy's text alone; no model is asked.

Principles are known by the ids of the policy that ships: a policy without one of them gets no pairs that break it.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from turnwise_training.constitution.harmless import SOURCE, temptations
from turnwise_training.constitution.lessons import Kind, Lesson, demonstration, preference
from turnwise_training.constitution.phrasing import BROKEN, COMPLYING, cautioned, refusal, safe_completion
from turnwise_training.constitution.requests import Request
from turnwise_training.data import Ranking
from turnwise_training.policy import Policy, PolicyCategory

OVER_REFUSAL, KIND_REFUSAL, CRISIS, ADVICE = (
    "do-not-over-refuse",
    "refuse-kindly",
    "care-in-crisis",
    "advice-with-care",
)

Say = Callable[[PolicyCategory, Policy, random.Random], str]
_ANSWERS: Final[dict[str, tuple[Kind, Say, str]]] = {
    "refuse": ("refusal", refusal, KIND_REFUSAL),
    "safe_complete": ("safe_completion", safe_completion, CRISIS),
}
"""By a category's action: what its requests are answered, who says it, and the principle that a rude one breaks."""


class Rules:
    """Makes the rows of one policy, the same for the same seed."""

    def __init__(self, policy: Policy, *, replies_each: int, seed: int) -> None:
        self._policy = policy
        self._replies_each = replies_each
        self._draw = random.Random(seed)
        self._principles = {principle.id: principle for principle in policy.principles}

    def lessons(self, requests: Iterable[Request]) -> Iterator[Lesson]:
        """Yield the rows of every request that has a reply by the policy, and those of honesty."""
        for request in requests:
            if request.category is None:
                yield from self._harmless(request)
            elif request.category.input_action == "caution":
                yield from self._advice(request, request.category)
            elif request.category.input_action in _ANSWERS:
                yield from self._harmful(request, request.category)
        yield from self._honesty()

    def _harmful(self, request: Request, category: PolicyCategory) -> Iterator[Lesson]:
        kind, say, breach = _ANSWERS[category.input_action]
        principle = self._principle_of(category)
        for _ in range(self._replies_each):
            row = demonstration(request.text, say(category, self._policy, self._draw))
            yield Lesson(row, kind, request.source, category.id, principle)
        broken = [(principle, COMPLYING)]
        if self._speaks_of(breach, category):
            broken.append((breach, BROKEN[breach]))
        for broken_one, replies in broken:
            chosen, rejected = say(category, self._policy, self._draw), self._draw.choice(replies)
            pair = self._pair(request.text, chosen, rejected)
            yield Lesson(pair, kind, request.source, category.id, broken_one)

    def _harmless(self, request: Request) -> Iterator[Lesson]:
        asked, answer, source = request.text, request.answer, request.source
        if not answer or OVER_REFUSAL not in self._principles:
            return
        yield Lesson(demonstration(asked, answer), "answer", source, principle=OVER_REFUSAL)
        refused = [each for each in self._policy.categories if each.input_action == "refuse"]
        rejected = self._draw.choice(BROKEN[OVER_REFUSAL])
        if refused and self._draw.random() < 0.5:
            rejected = refusal(self._draw.choice(refused), self._policy, self._draw)
        yield Lesson(self._pair(asked, answer, rejected), "answer", source, principle=OVER_REFUSAL)

    def _advice(self, request: Request, category: PolicyCategory) -> Iterator[Lesson]:
        if not request.answer:
            return
        asked, source, principle = request.text, request.source, self._principle_of(category)
        reply = cautioned(category, self._policy, request.answer)
        yield Lesson(demonstration(asked, reply), "caution", source, category.id, principle)
        if self._speaks_of(ADVICE, category):
            pair = self._pair(asked, reply, self._draw.choice(BROKEN[ADVICE]))
            yield Lesson(pair, "caution", source, category.id, ADVICE)

    def _honesty(self) -> Iterator[Lesson]:
        for each in temptations():
            if each.principle in self._principles:
                row = demonstration(each.asked, each.kept)
                yield Lesson(row, "honesty", SOURCE, principle=each.principle)
                pair = self._pair(each.asked, each.kept, each.broken)
                yield Lesson(pair, "honesty", SOURCE, principle=each.principle)

    def _pair(self, asked: str, chosen: str, rejected: str) -> Ranking:
        return preference(asked, chosen=chosen, rejected=rejected, labeler=f"policy {self._policy.name}")

    def _principle_of(self, category: PolicyCategory) -> str | None:
        """Return the first principle that names the category."""
        return next((each.id for each in self._policy.principles if category.id in each.categories), None)

    def _speaks_of(self, principle: str, category: PolicyCategory) -> bool:
        """Tell whether the policy has the principle and lets it speak of the category."""
        found = self._principles.get(principle)
        return found is not None and (not found.categories or category.id in found.categories)
