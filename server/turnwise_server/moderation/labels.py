"""From what detectors call things to what the policy calls them, with the scores from which they count. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_categories import Category, InputRule, OutputRule
from turnwise_server.chat.refusal.policy_types import OPENAI_CATEGORIES, Stage
from turnwise_server.chat.refusal.verdict import Place
from turnwise_server.moderation.detector import Detector, Scores
from turnwise_server.moderation.readings import CategoryScore, LabelScore, Reading, merge

DEFAULT_THRESHOLD = 0.5
"""From where a label counts whose detector was not calibrated."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a label of one detector means under the policy."""

    category: str
    exported: tuple[str, ...]
    """OpenAI's names that its score is reported under."""
    threshold: float
    """The score from which it counts."""
    review: float
    """The score from which a slower detector is worth asking; above 1 if none is."""


class Labels:
    """The labels of one detector, read by one policy for one stage."""

    def __init__(self, policy: Policy, stage: Stage, detector: Detector) -> None:
        """Look up every label that the detector has; those without a meaning are passed over."""
        spec = next(each for each in policy.detectors if each.id == detector.id)
        by_label = _categories_by_label(policy) | {
            label: _category(policy, name) for label, name in (spec.labels or {}).items()
        }
        self._id = detector.id
        self._meanings: dict[str, _Meaning] = {}
        for label in detector.labels:
            if (category := by_label.get(label)) is not None:
                own = detector.thresholds.get(label, DEFAULT_THRESHOLD)
                self._meanings[label] = _meaning(label, category, _rule(category, stage), own)

    @property
    def categories(self) -> frozenset[str]:
        """The categories that it has a label for."""
        return frozenset(meaning.category for meaning in self._meanings.values())

    def is_unsure(self, scores: Scores) -> bool:
        """Return whether a slower detector is worth asking about a text with these scores."""
        return any(scores.get(label, 0.0) >= each.review for label, each in self._meanings.items())

    def read(self, scores: Scores, place: Place, *, but: frozenset[str] = frozenset()) -> Reading:
        """Return what the scores of a text say of all its categories `but` some. A label left out scores 0."""
        return merge(
            Reading(
                {meaning.category: CategoryScore(score, score >= meaning.threshold, self._id, place)},
                {name: LabelScore(score, score >= meaning.threshold) for name in meaning.exported},
            )
            for label, meaning in self._meanings.items()
            if meaning.category not in but
            for score in (scores.get(label, 0.0),)
        )


def _categories_by_label(policy: Policy) -> dict[str, Category]:
    """Every label that needs no translation: OpenAI's names, Llama Guard's codes and the policy's own names."""
    return {
        label: category
        for category in policy.categories
        for label in (*category.openai, *category.llama_guard, category.id)
    }


def _category(policy: Policy, name: str) -> Category:
    return next(category for category in policy.categories if category.id == name)


def _rule(category: Category, stage: Stage) -> InputRule | OutputRule:
    return category.input if stage == "input" else category.output


def _meaning(label: str, category: Category, rule: InputRule | OutputRule, own_threshold: float) -> _Meaning:
    threshold = own_threshold if rule.threshold == "detector" else rule.threshold
    # A review score that was written for another detector must not lie above this one's threshold.
    review = 2.0 if rule.review is None else min(rule.review, threshold)
    exported = (label,) if label in OPENAI_CATEGORIES else category.openai
    return _Meaning(category.id, exported, threshold, review)
