"""Classes of characters for regular expressions, from the Unicode facts that Python ships."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

_CODE_POINTS: Final = range(0x20000)
"""The planes that hold all letters but ideographs, all signs and all marks."""
_TAGS_AND_SELECTORS: Final = range(0xE0000, 0xE1000)
_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\ufffc")
"""Characters of other categories that show nothing: fillers, joiners, the empty braille cell."""


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        category in ("Cf", "Cs")
        or (category == "Cc" and not character.isspace())
        or character in _BLANKS
        or "\ufe00" <= character <= "\ufe0f"
        or ord(character) in _TAGS_AND_SELECTORS
    )


def _is_mark(character: str) -> bool:
    """Whether a character stands upon the one before it, after NFKC at the latest."""
    if unicodedata.category(character) in ("Mn", "Me") or unicodedata.combining(character):
        return True
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0


def _is_long_expansion(character: str) -> bool:
    return len(unicodedata.normalize("NFKC", character)) > 4


def _class_of(is_member: Callable[[str], bool], code_points: Iterable[int]) -> str:
    """Return the members as the inside of a bracket expression."""
    ranges: list[tuple[int, int]] = []
    for code_point in code_points:
        if is_member(chr(code_point)):
            if ranges and ranges[-1][1] == code_point - 1:
                ranges[-1] = (ranges[-1][0], code_point)
            else:
                ranges.append((code_point, code_point))
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)


INVISIBLE: Final = _class_of(_is_invisible, chain(_CODE_POINTS, _TAGS_AND_SELECTORS))
MARK: Final = _class_of(_is_mark, _CODE_POINTS)
LONG_EXPANSIONS: Final = _class_of(_is_long_expansion, _CODE_POINTS)
UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai and Lao, Burmese, Khmer, kana and ideographs: their words stand side by side without spaces."""
LETTER: Final = r"[^\W\d_]"
