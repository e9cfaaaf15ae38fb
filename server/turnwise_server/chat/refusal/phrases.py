"""Scores texts by lists of phrases: 1 where a phrase of a category stands as whole words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from turnwise_server.chat.refusal.canonical import canonical
from turnwise_server.chat.refusal.characters import UNSPACED

_UNSPACED: Final = re.compile(f"[{UNSPACED}]")
_SPACED_LETTER: Final = rf"[^\W{UNSPACED}]"
_GAP: Final = r"\s{1,2}"
"""No run of white space is longer in a canonical form."""


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
    """Return a pattern of plain alternatives, which takes time linear in the text.

    A phrase is looked for as it is written, and as texts look by the time that detectors see them.
    """
    written = dict.fromkeys(each for phrase in phrases for each in (phrase, canonical(phrase)) if each)
    return re.compile("|".join(_whole_words(phrase.casefold()) for phrase in written))


def _whole_words(phrase: str) -> str:
    """Return a pattern of a phrase between ends of words, which scripts that write without spaces do not show."""
    words = phrase.split()
    before = "" if _UNSPACED.match(words[0][0]) else f"(?<!{_SPACED_LETTER})"
    behind = "" if _UNSPACED.match(words[-1][-1]) else f"(?!{_SPACED_LETTER})"
    return before + _GAP.join(map(re.escape, words)) + behind
