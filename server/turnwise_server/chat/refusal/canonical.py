"""Undoes what hides a text from a reader of letters: the canonical form, which detectors judge. Pure.

Ordinary texts of any script stay as they are, but for Unicode's NFKC, invisible characters and runs of white space.
The form is for judging only and is never shown: a joiner that Persian or an emoji needs is dropped like any other.
Every step takes time linear in the text. The canonical form of a canonical form is the form itself, but where a
look-alike letter that stands alone composes with a mark, once it is read as Latin.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from turnwise_server.chat.refusal.characters import INVISIBLE, LONG_EXPANSIONS, MARK
from turnwise_server.chat.refusal.lookalikes import fold_drawn_letters, fold_lookalikes
from turnwise_server.chat.refusal.spelling import join_spelled

_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]+")
_LONG_EXPANSION: Final = re.compile(f"([{LONG_EXPANSIONS}])")
_MANY_MARKS: Final = re.compile(f"[{MARK}]{{5,}}")
"""More than any script stacks. Dropped before NFKC, whose sorting of marks takes quadratic time."""
_OVERLAID: Final = re.compile("[\u0334-\u0338\u20d0-\u20f0]+")
"""Strokes through letters and rings around them: no script writes with them."""
_MARKED: Final = re.compile(f"([0-9A-Za-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff])([{MARK}]+)")
"""Marks beyond what composes with a letter of a script that stacks few."""
_LOOSE_MARKS: Final = re.compile(f"([\\s!-/:-@\\[-`{{-~])[{MARK}]+")
"""Marks on signs and on white space."""
_MARKS_BELOW: Final = frozenset("\u0323\u0328\u0331")
"""The dot, the hook and the line below that Yoruba, Navajo and others combine with a tone."""
_WHITE_SPACE: Final = re.compile(r"\s{2,}|[^\S\n ]")
_REPEATED: Final = re.compile(r"([^\s\d])\1{3,}")


def canonical(
    text: str,
    *,
    nfkc: bool = True,
    strip_invisible: bool = True,
    confusables: bool = True,
    collapse_spacing: bool = True,
) -> str:
    """Return the canonical form of `text`; the flags are those of the policy's `normaliser`."""
    text = visible(text, nfkc=nfkc, strip_invisible=strip_invisible)
    if confusables:
        text = _replaced(text, fold_drawn_letters, nfkc=nfkc, strip_invisible=strip_invisible)
    text = _WHITE_SPACE.sub(_shorter, text).strip()
    if collapse_spacing:
        text = join_spelled(text)
    if confusables:
        text = _replaced(text, fold_lookalikes, nfkc=nfkc, strip_invisible=strip_invisible)
    return _REPEATED.sub(r"\1\1\1", text)


def visible(text: str, *, nfkc: bool = True, strip_invisible: bool = True) -> str:
    """Return `text` without invisible characters and stacked marks, and folded by NFKC: the form to decode."""
    if strip_invisible:
        text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    if strip_invisible or nfkc:
        text = _MANY_MARKS.sub("", text)
    if nfkc:
        text = _MANY_MARKS.sub("", _nfkc(text))
    if strip_invisible:
        text = _LOOSE_MARKS.sub(r"\1", _OVERLAID.sub("", text))
        text = _MARKED.sub(_unstacked, text)
    return text


def _unstacked(match: re.Match[str]) -> str:
    """Return a letter as it is if a language writes it with these marks, else without any."""
    decomposed = unicodedata.normalize("NFD", match[0])
    letter, marks = decomposed[0], decomposed[1:]
    is_written = len(marks) == 1 or (len(marks) == 2 and not _MARKS_BELOW.isdisjoint(marks))
    return match[0] if is_written else letter


def _replaced(text: str, fold: Callable[[str], str], *, nfkc: bool, strip_invisible: bool) -> str:
    """Return the folded text; marks may compose with letters that they did not compose with before."""
    folded = fold(text)
    return text if folded == text else visible(folded, nfkc=nfkc, strip_invisible=strip_invisible)


def _nfkc(text: str) -> str:
    """Fold by NFKC, but for the few characters that stand for whole phrases: a text may not grow eighteenfold."""
    return "".join(
        part if index % 2 else unicodedata.normalize("NFKC", part)
        for index, part in enumerate(_LONG_EXPANSION.split(text))
    )


def _shorter(match: re.Match[str]) -> str:
    """Keep of a run of white space what tells words, spelled words and paragraphs apart."""
    run = match[0]
    if "\n" in run:
        return "\n\n" if run.count("\n") > 1 else "\n"
    return "  " if len(run) > 1 else " "
