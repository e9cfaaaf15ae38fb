"""Demonstrations and preferences that follow from the policy's text alone; no model is asked.

Principles are known by the ids of the policy that ships: a policy without one of them gets no pairs that break it.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from turnwise_training.constitution.harmless import SOURCE, advice, temptations
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

    def lessons(self, harmful: Iterable[Request], harmless: Iterable[Request]) -> Iterator[Lesson]:
        """Yield all rows: of harmful requests, of harmless ones with an answer, of advice and of honesty."""
        for request in harmful:
            yield from self._harmful(request)
        if OVER_REFUSAL in self._principles:
            for request in harmless:
                if request.answer:
                    yield from self._harmless(request)
        for category in self._policy.categories:
            if category.input_action == "caution":
                yield from self._advice(category)
        yield from self._honesty()

    def _harmful(self, request: Request) -> Iterator[Lesson]:
        category, asked = request.category, request.text
        assert category is not None, "a harmful request has a category"
        if category.input_action not in _ANSWERS:  # what is not refused is no lesson in refusing
            return
        kind, say, breach = _ANSWERS[category.input_action]
        principle = self._principle_of(category)
        for _ in range(self._replies_each):
            row = demonstration(asked, say(category, self._policy, self._draw))
            yield Lesson(row, kind, request.source, category.id, principle)
        broken = [(principle, COMPLYING)]
        if self._speaks_of(breach, category):
            broken.append((breach, BROKEN[breach]))
        for broken_one, replies in broken:
            pair = self._pair(asked, say(category, self._policy, self._draw), self._draw.choice(replies))
            yield Lesson(pair, kind, request.source, category.id, broken_one)

    def _harmless(self, request: Request) -> Iterator[Lesson]:
        asked, answer, source = request.text, request.answer, request.source
        yield Lesson(demonstration(asked, answer), "answer", source, principle=OVER_REFUSAL)
        refused = [each for each in self._policy.categories if each.input_action == "refuse"]
        rejected = self._draw.choice(BROKEN[OVER_REFUSAL])
        if refused and self._draw.random() < 0.5:
            rejected = refusal(self._draw.choice(refused), self._policy, self._draw)
        yield Lesson(self._pair(asked, answer, rejected), "answer", source, principle=OVER_REFUSAL)

    def _advice(self, category: PolicyCategory) -> Iterator[Lesson]:
        for asked, answer in advice(category.id):
            reply, principle = cautioned(category, self._policy, answer), self._principle_of(category)
            yield Lesson(demonstration(asked, reply), "caution", SOURCE, category.id, principle)
            if self._speaks_of(ADVICE, category):
                pair = self._pair(asked, reply, self._draw.choice(BROKEN[ADVICE]))
                yield Lesson(pair, "caution", SOURCE, category.id, ADVICE)

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
