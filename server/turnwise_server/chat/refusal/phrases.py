"""Scores texts by lists of phrases: 1 where a phrase of a category stands as whole words. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
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
    """Return a pattern that finds phrases in time linear in the text, as they are written and in canonical form.

    They stand between ends of words, which scripts that write without spaces do not show. Those that begin and end
    alike are alternatives of one group, whose ends `re` tries once for all of them.
    """
    groups: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for words in (each.casefold().split() for phrase in phrases for each in (phrase, canonical(phrase))):
        if words:
            before = "" if _UNSPACED.match(words[0][0]) else f"(?<!{_SPACED_LETTER})"
            behind = "" if _UNSPACED.match(words[-1][-1]) else f"(?!{_SPACED_LETTER})"
            groups[before, behind][_GAP.join(map(re.escape, words))] = None
    return re.compile("|".join(f"{ends[0]}(?:{'|'.join(group)}){ends[1]}" for ends, group in groups.items()))
