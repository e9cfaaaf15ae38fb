"""What detectors made of texts, in the policy's words: a score for each category, and whether it counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

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
    shadow: Mapping[str, Mapping[str, CategoryScore]] = field(default_factory=dict)
    """What detectors say that decide nothing: by their ids, by category."""

    def disagrees(self, detector: str) -> bool:
        """Return whether a detector that decides nothing would have decided otherwise about some category."""
        return any(
            each.is_reached != (name in self.categories and self.categories[name].is_reached)
            for name, each in self.shadow[detector].items()
        )

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
    shadow: dict[str, dict[str, CategoryScore]] = {}
    for reading in readings:
        _keep_greater(categories, reading.categories)
        _keep_greater(labels, reading.labels)
        unchecked |= reading.unchecked
        for detector, scores in reading.shadow.items():
            _keep_greater(shadow.setdefault(detector, {}), scores)
    missed = frozenset(
        name for name in unchecked if name not in categories or not categories[name].is_reached
    )
    return Reading(categories, labels, missed, shadow)


Score = TypeVar("Score", CategoryScore, LabelScore)


def _keep_greater(kept: dict[str, Score], more: Mapping[str, Score]) -> None:
    for name, score in more.items():
        if name not in kept or score.rank > kept[name].rank:
            kept[name] = score
