"""Reads digits and signs as the letters they are drawn for: "c4k3" as "cake". Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_SIGNS: Final = "0134578@$!€"
_AS_LETTERS: Final = str.maketrans(_SIGNS, "oieastbasie")
_AS_L: Final = str.maketrans("1!", "ll")
_TOKEN: Final = re.compile(rf"(?<![\\/+=A-Za-z0-9])[A-Za-z0-9{_SIGNS}]{{2,24}}(?![/+=A-Za-z0-9]|\.[a-z0-9])")
_INSIDE: Final = re.compile(f"[A-Za-z][{_SIGNS}]+[A-Za-z]")
_AT_AN_END: Final = re.compile("[0-9][A-Za-z]{4,}|[A-Za-z]{4,}[0-9]")
_HEXADECIMAL: Final = re.compile("[0-9a-fA-F]{8,}")
_MANY: Final = 3
"""From so many disguised words on, the whole text is read that way: "70 833 0r n07 70 833"."""


def readings(text: str) -> Iterator[str]:
    """Yield the texts that `text` may stand for: first with 1 for i, then with 1 for l; none if it is ordinary."""
    if not (_INSIDE.search(text) or _AT_AN_END.search(text)):
        return
    disguised = sum(1 for match in _TOKEN.finditer(text) if _is_disguised(match[0]))
    if not disguised:
        return
    for table in (_AS_LETTERS, _AS_LETTERS | _AS_L):
        reading = _read(text, table, disguised >= _MANY)
        yield reading
        if not ("1" in text or "!" in text):
            return


def _read(text: str, table: dict[int, int], is_whole: bool) -> str:
    if is_whole:
        return text.translate(table)
    return _TOKEN.sub(lambda match: match[0].translate(table) if _is_disguised(match[0]) else match[0], text)


def _is_disguised(token: str) -> bool:
    """Whether a word has signs for letters. "mp3", "H2O", "2nd" and the digits of a checksum have not."""
    if not (_INSIDE.search(token) or _AT_AN_END.fullmatch(token)):
        return False
    letters = sum(1 for character in token if character.isalpha())
    return 2 * letters >= len(token) and not _HEXADECIMAL.fullmatch(token)
