"""Cuts forms of a text into overlapping windows, and takes the highest score over all of them. Pure.

Every window is judged, however many there are: what is too long to be judged whole has to be refused by the server's
limit on the size of requests, never judged by a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from turnwise_server.chat.refusal.graphemes import can_cut
from turnwise_server.chat.refusal.normalise import Form
from turnwise_server.chat.refusal.policy_stages import InputStage

_REACH: Final = 32
"""How far before its place a cut looks for the beginning of a word, in characters."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of one form of a text, `start` and `end` counted in the characters of that form."""

    form: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class TopScore:
    """The highest score of a label, and the window that has it."""

    score: float
    window: Window


def windows(forms: Iterable[Form], settings: InputStage) -> Iterator[Window]:
    """Yield the windows of all forms: about `window_chars` characters each, neighbours sharing about `overlap`.

    Where they begin depends on the form alone. An empty form has none.
    """
    for form in forms:
        for start, end in spans(form.text, settings.window_chars, settings.overlap):
            yield Window(form.name, start, end, form.text[start:end])


def spans(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield where windows begin and end, covering every character; `overlap` is less than `size`."""
    step = size - overlap
    for place in range(0, max(len(text) - overlap, min(1, len(text))), step):
        yield _cut(text, place), _cut(text, place + size)


def top_scores(judged: Iterable[Window], scores: Iterable[Mapping[str, float]]) -> dict[str, TopScore]:
    """Return the highest score of every label; `scores` are those of `judged`, in the same order."""
    top: dict[str, TopScore] = {}
    for window, by_label in zip(judged, scores, strict=True):
        for label, score in by_label.items():
            if label not in top or score > top[label].score:
                top[label] = TopScore(score, window)
    return top


def _cut(text: str, place: int) -> int:
    """Return the nearest beginning of a word at or before `place`, else of a character with its marks."""
    if place <= 0 or place >= len(text):
        return min(max(place, 0), len(text))
    least = max(0, place - _REACH)
    for cut in range(place, least, -1):
        if text[cut - 1].isspace() and not text[cut].isspace():
            return cut
    for cut in range(place, least, -1):
        if can_cut(text[cut - 1], text[cut]):
            return cut
    return place
