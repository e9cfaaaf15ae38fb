"""Tells where streamed text may be cut without splitting what a reader sees as one character.

The rule is stricter than the grapheme clusters of Unicode (UAX 29): it looks at two characters only and joins whenever
it is in doubt, as between a mark and a letter, or around characters that this Python does not know. A cut that it
allows is a cluster boundary; not every cluster boundary is a cut that it allows. So it needs no table but Python's own.
"""

from __future__ import annotations

import unicodedata

_JOINING = {"Cf", "Cn", "Mc", "Me", "Mn", "Sk"}
"""Marks, modifiers (skin tones) and invisible formatting (joiners, tags): they belong to what stands before them."""
_JOINED_AFTER = {"Cf", "Cn"}
"""Joiners bind what follows, too."""
_SPACING_VOWELS = frozenset("\u0e33\u0eb3\uff9e\uff9f")
"""Thai and Lao AM, halfwidth voicing marks: letters that belong to the letter before them."""
_PREPENDED = frozenset(
    "\u0d4e\u1cf5\u1cf6\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88"
    "\U00011a89\U00011d46"
)
"""Letters of Indic scripts that belong to the letter after them."""


def can_cut(before: str, after: str) -> bool:
    """Return whether text may be cut between two neighbouring characters."""
    if before < "\u0300" and after < "\u0300":
        return not (_joins_in_latin(before, after))
    first, second = unicodedata.category(before), unicodedata.category(after)
    if second in _JOINING or first in _JOINED_AFTER:
        return False
    is_conjunct = first[0] == "M" and second == "Lo"
    return not (
        is_conjunct
        or after in _SPACING_VOWELS
        or before in _PREPENDED
        or (_is_flag_half(before) and _is_flag_half(after))
        or _is_same_syllable(before, after)
    )


def _joins_in_latin(before: str, after: str) -> bool:
    return (before == "\r" and after == "\n") or "\u00ad" in (before, after)


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _is_same_syllable(before: str, after: str) -> bool:
    """Whether two Korean letters may be parts of one block."""
    is_leading = "\u1100" <= before <= "\u115f" or "\ua960" <= before <= "\ua97c"
    is_following = "\u1160" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7fb"
    return is_leading or is_following
