"""Scores texts by lists of phrases: 1 where a phrase of a category stands as whole words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class PhraseMatcher:
    """The phrases of a `phrases` detector, compiled once."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]) -> None:
        """Take phrases by category; case and the kind of white space between words do not matter."""
        self._patterns = {category: _any_of(each) for category, each in phrases.items() if each}

    def scores(self, text: str) -> dict[str, float]:
        """Return 1.0 or 0.0 for each category that has phrases."""
        folded = text.casefold()
        return {
            category: float(pattern.search(folded) is not None)
            for category, pattern in self._patterns.items()
        }


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern of plain alternatives, which takes time linear in the text."""
    alternatives = "|".join(r"\s".join(map(re.escape, phrase.casefold().split())) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")
