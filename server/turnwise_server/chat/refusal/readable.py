"""Tells whether decoded characters are words that somebody wrote. Pure, but for its list of common words.

The list holds the most frequent English words in the starter model's training texts, and the commonest words of ten
further languages with Latin letters. Letters of other scripts do not arise by chance: a run of them counts as a word.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Final

MIN_PRINTABLE: Final = 0.7
MIN_WORDS: Final = 3

_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def is_readable(text: str) -> bool:
    """Return whether at least `MIN_WORDS` common words stand in a text that is mostly printable."""
    return is_printable(text) and has_words(text)


def is_printable(text: str) -> bool:
    """Return whether at least `MIN_PRINTABLE` of the characters are ones that people write."""
    unprintable = sum(1 for _ in _UNPRINTABLE.finditer(text))
    return unprintable <= len(text) * (1 - MIN_PRINTABLE)


def has_words(text: str) -> bool:
    """Return whether at least `MIN_WORDS` common words stand in a text."""
    words = (match for match in _WORD.finditer(text) if is_word(match[0]))
    return len(list(islice(words, MIN_WORDS))) == MIN_WORDS


def is_word(letters: str) -> bool:
    """Return whether letters are a common word, or of a script other than Latin."""
    return letters.lower() in common_words() or letters[0] > "\u036f"


@cache
def common_words() -> frozenset[str]:
    """Return the common words, in lower case and of three letters or more."""
    text = files("turnwise_server.chat.refusal").joinpath("common_words.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
