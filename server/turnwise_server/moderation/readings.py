"""What detectors made of texts, in the policy's words: a score for each category, and whether it counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from turnwise_server.chat.refusal.verdict import Place


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """How likely a text belongs to a category of the policy."""

    score: float
    is_reached: bool
    """Whether the score counts, by the category's threshold or the detector's own."""
    detector: str
    """Whose score it is."""
    place: Place = field(default_factory=Place)

    @property
    def rank(self) -> tuple[bool, float]:
        """The greater one of two says more."""
        return self.is_reached, self.score


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How likely a text bears one of OpenAI's names, and whether it counts."""

    score: float = 0.0
    is_reached: bool = False

    @property
    def rank(self) -> tuple[bool, float]:
        """The greater one of two says more."""
        return self.is_reached, self.score


@dataclass(frozen=True, slots=True)
class Reading:
    """What all detectors together say of a text."""

    categories: Mapping[str, CategoryScore] = field(default_factory=dict)
    """By category of the policy; one that nothing was said about is absent."""
    labels: Mapping[str, LabelScore] = field(default_factory=dict)
    """By OpenAI's names; one that nothing was said about is absent."""
    unchecked: frozenset[str] = frozenset()
    """Categories that a detector could not be asked about, and that no other one found."""
    shadow: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The highest score of each category, by detector that decides nothing."""

    def at(self, origin: str, turn: int) -> Reading:
        """Return the same reading as that of a text of this origin; forms and windows stay."""
        categories = {
            name: replace(each, place=replace(each.place, origin=origin, turn=turn))
            for name, each in self.categories.items()
        }
        return replace(self, categories=categories)


def merge(readings: Iterable[Reading]) -> Reading:
    """Return what several readings say together: of each category the one that says most, the first of equals."""
    categories: dict[str, CategoryScore] = {}
    labels: dict[str, LabelScore] = {}
    unchecked: set[str] = set()
    shadow: dict[str, dict[str, float]] = {}
    for reading in readings:
        for name, found in reading.categories.items():
            if name not in categories or found.rank > categories[name].rank:
                categories[name] = found
        for label, score in reading.labels.items():
            if label not in labels or score.rank > labels[label].rank:
                labels[label] = score
        unchecked |= reading.unchecked
        for detector, scores in reading.shadow.items():
            best = shadow.setdefault(detector, {})
            for name, score_of in scores.items():
                best[name] = max(score_of, best.get(name, 0.0))
    missed = frozenset(
        name for name in unchecked if name not in categories or not categories[name].is_reached
    )
    return Reading(categories, labels, missed, shadow)
