"""Reads letters of other alphabets that look Latin as Latin ones, where a word mixes alphabets. Pure.

Greek, Cyrillic and other words stay as they are: a word of look-alikes alone is read as Latin only on a line that is
mostly Latin without it.
"""

# ruff: noqa: RUF001 - letters that look like others are what this table is of

from __future__ import annotations

import re
import unicodedata
from typing import Final

from turnwise_server.chat.refusal.characters import LETTER, MARK

_BY_SHAPE: Final = {
    # Cyrillic
    "АВЕЅІЈКМНОРСТУХҮԌԚԜ": "ABESIJKMHOPCTYXYGQW",
    "асԁеһіјкӏорԛѕуԝхүьмтгп": "acdehijklopqsywxybmtrn",
    # Greek; not mu, which units need
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϳ": "ABEZHIKMNOPTYXCj",
    "αγικνορτυχϲωβε": "ayikvoptuxcwbe",
    # Armenian
    "ացեհյոսւքօՕՍՏԼ": "wgthjnuiqoOUSL",
    # Cherokee capitals
    "ᎠᎡᎢᎪᎫᎬᎳᎷᎻᎽᏀᏃᏇᏎᏒᏔᏙᏚᏞᏟᏢᏦᏧᏴᏼ": "DRTAJEWMHYGZMSRWVSLCPKdBB",
    # Phonetic letters, and the capitals of other scripts that are drawn alike
    "ɑɡɩʋʍ": "agivw",
    "ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ": "BPDTGKJCZFNLSRVHWXYAEIOU",
}
_SMALL_CAPITAL: Final = re.compile("LATIN LETTER SMALL CAPITAL ([A-Z])")
_NEGATIVE_CAPITAL: Final = re.compile("(?:NEGATIVE CIRCLED|NEGATIVE SQUARED) LATIN CAPITAL LETTER ([A-Z])")


def _named(pattern: re.Pattern[str], blocks: tuple[range, ...]) -> dict[str, str]:
    """Return the letter in the name of every character of `blocks` whose name has the given form."""
    names = ((chr(code), unicodedata.name(chr(code), "")) for block in blocks for code in block)
    return {sign: match[1] for sign, name in names if (match := pattern.fullmatch(name))}


LOOKALIKES: Final = {
    sign: letter for signs, letters in _BY_SHAPE.items() for sign, letter in zip(signs, letters, strict=True)
}
"""Letters by what they look like, judged by the shapes of common typefaces."""
DRAWN_LETTERS: Final = {
    sign: letter.lower()
    for sign, letter in (
        _named(_SMALL_CAPITAL, (range(0x250, 0x2B0), range(0x1D00, 0x1D80), range(0xA700, 0xA800)))
        | _named(_NEGATIVE_CAPITAL, (range(0x1F100, 0x1F200),))
    ).items()
}
"""Letters drawn as small capitals or in white on black, which NFKC leaves; no language writes words with them."""

_FOLD: Final = str.maketrans(LOOKALIKES)
_WORD: Final = re.compile(f"{LETTER}+(?:[{MARK}]+{LETTER}*)*")
_LATIN: Final = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")
_LOOKALIKE: Final = re.compile(f"[{''.join(LOOKALIKES)}]")
_DRAWN: Final = re.compile(f"[{''.join(DRAWN_LETTERS)}]")


def fold_drawn_letters(text: str) -> str:
    """Return `text` with small capitals and white letters on black as plain letters."""
    return text if text.isascii() else _DRAWN.sub(lambda match: DRAWN_LETTERS[match[0]], text)


def fold_lookalikes(text: str) -> str:
    """Return `text` with look-alikes read as Latin letters where that is what they stand for."""
    if text.isascii():
        return text
    return "\n".join(map(_folded_line, text.split("\n")))


def _folded_line(line: str) -> str:
    if not _LOOKALIKE.search(line):
        return line
    words = _WORD.findall(line)
    latin = sum(1 for word in words if _LATIN.search(word))
    lookalike = sum(1 for word in words if _is_lookalike(word))
    is_latin = latin > len(words) - latin - lookalike
    return _WORD.sub(lambda match: _folded_word(match[0], is_latin), line)


def _is_lookalike(word: str) -> bool:
    return all(sign in LOOKALIKES or not sign.isalpha() for sign in word)


def _folded_word(word: str, is_latin_line: bool) -> str:
    if _LATIN.search(word) or (is_latin_line and _is_lookalike(word)):
        return word.translate(_FOLD)
    return word
