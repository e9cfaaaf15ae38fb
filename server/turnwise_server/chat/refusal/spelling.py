"""Joins words that are written letter by letter: "c a k e", "c.a.k.e". Pure.

Ordinary texts hold single letters too: "il y a à", "U.S.A.". So the careful form joins spaced letters only if one of
them is a word in no language, and leaves short dotted ones that end with a dot. The eager form joins all, and is
judged besides the careful one, not in its place.
"""

# ruff: noqa: RUF001 - words of one letter are also those of Cyrillic

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from turnwise_server.chat.refusal.characters import LETTER
from turnwise_server.chat.refusal.lookalikes import LOOKALIKES

_ONE_LETTER_WORDS: Final = frozenset("abcehikosuvwyzàáâèéêìíòóôöøåùúавежийкоуябэєїўыηήόὁἡὀωώ")
"""Words of one letter in languages with capitals, and the Latin letters that such words look like."""
_SPELLED: Final = (
    f"[A-Za-z\u00aa-\u024f\u0370-\u03ff\u0400-\u052f\u0531-\u0587\u1e00-\u1fff{''.join(LOOKALIKES)}]"
)
"""Letters of the scripts with capitals: in these, words of one letter are few and known."""
_SIGNS: Final = r".\-_*·•~|+"
_BEGIN: Final = r"(?<![^\W_])"
"""No letter or digit stands before."""
_END: Final = r"(?![^\W_])"
_WORD_BEGIN: Final = r"(?<![^\s(\[\"'])"
_WORD_END: Final = rf"(?![^\W_]|[{_SIGNS}][^\W_])"
_BEFORE_STOP: Final = "(?: (?=[.,!?;:]))?"
_DOTTED: Final = re.compile(rf"{_BEGIN}{_SPELLED}([{_SIGNS}]){_SPELLED}(?:\1{_SPELLED}{_END})+")
_SPACED: Final = re.compile(rf"{_WORD_BEGIN}{_SPELLED}(?: {{1,2}}{_SPELLED}{_WORD_END})+{_BEFORE_STOP}")
_EAGER_DOTTED: Final = re.compile(rf"{_BEGIN}{LETTER}(?:[{_SIGNS},/\\]{LETTER}{_END})+")
_EAGER_SPACED: Final = re.compile(rf"{_WORD_BEGIN}[\w@$](?:[ \n]{{1,2}}[\w@$]{_WORD_END})+{_BEFORE_STOP}")
_SPELLED_OUT: Final = re.compile(rf"{_BEGIN}{LETTER}(?:[\s{_SIGNS},/\\]{{1,2}}[\w@$]{_END}){{2}}")
_UNSPACED: Final = re.compile("[\u1100-\u11ff\u3040-\u30ff\uac00-\ud7af]")
"""Korean and Japanese syllables, which are words by themselves."""
_LONGEST_ABBREVIATION: Final = 4


def join_spelled(text: str) -> str:
    """Return `text` with the words joined that are surely written letter by letter."""
    text = _DOTTED.sub(_dotted, text)
    return _SPACED.sub(lambda match: _phrase(match[0]), text)


def is_spelled(text: str) -> bool:
    """Return whether three letters stand apart somewhere in `text`, so that the eager form is worth judging."""
    return _SPELLED_OUT.search(text) is not None


def join_spelled_eagerly(text: str) -> str:
    """Return `text` with everything joined that may be written letter by letter, abbreviations too."""
    text = _EAGER_DOTTED.sub(lambda match: re.sub(r"[\W_]", "", match[0]), text)
    return _EAGER_SPACED.sub(lambda match: _eager_phrase(match[0]), text)


def _phrase(run: str) -> str:
    if any(_is_evidence(letter) for letter in run if letter != " "):
        return _joined(run.rstrip(" "), run, "  ")
    return run


def _eager_phrase(run: str) -> str:
    if _UNSPACED.search(run) or not any(character.isalpha() for character in run):
        return run
    run = run.rstrip(" ")
    if "  " not in run:
        return re.sub(r"\s", "", run)
    return _joined(run, run, "  ")


def _joined(run: str, otherwise: str, gap: str) -> str:
    """Join the letters of each word; `gap` stays between two words of one letter, which say nothing about spelling."""
    words = [word.replace(" ", "").replace("\n", "") for word in run.split(gap)]
    if max(map(len, words)) < 3:
        return otherwise
    joined = words[0]
    for before, word in pairwise(words):
        joined += (gap if len(before) == len(word) == 1 else " ") + word
    return joined


def _is_evidence(letter: str) -> bool:
    """Whether a letter that stands alone cannot be a word; the same for a letter and for what it looks like."""
    return (
        letter.lower() not in _ONE_LETTER_WORDS
        and LOOKALIKES.get(letter, letter).lower() not in _ONE_LETTER_WORDS
    )


def _dotted(match: re.Match[str]) -> str:
    run, sign = match[0], match[1]
    letters = run.replace(sign, "")
    is_abbreviation = (
        sign == "." and match.string.startswith(".", match.end()) and len(letters) <= _LONGEST_ABBREVIATION
    )
    return run if is_abbreviation else letters
