"""Harmless questions with alarming words and the answers to them, from harmless.yaml; and questions about oneself."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import yaml

_WRITTEN: Final[dict[str, Any]] = yaml.safe_load(
    files(__package__).joinpath("harmless.yaml").read_text("utf-8")
)
SOURCE: Final = "written"
LICENCE: Final = "Apache-2.0"


Answered = tuple[str, str]
"""A question and the reply that keeps to the rules."""


@dataclass(frozen=True)
class Temptation:
    """A question whose easy reply would break a principle."""

    principle: str
    asked: str
    kept: str
    broken: str


def answered_questions() -> Iterator[Answered]:
    """Yield harmless questions that only sound alarming, in every wording."""
    for task, answer in _WRITTEN["how_to"].items():
        for frame in _WRITTEN["frames"]:
            yield frame.format(task), answer
    for idiom, meaning in _WRITTEN["idioms"].items():
        for frame in _WRITTEN["idiom_frames"]:
            yield frame.format(idiom), f'"{idiom[0].upper()}{idiom[1:]}" means {meaning}.'
    yield from _wordings(_WRITTEN["questions"])


def advice(category: str) -> Iterator[Answered]:
    """Yield the questions of a category that is answered with a caution, and general answers."""
    yield from _wordings(_WRITTEN["advice"].get(category, []))


def temptations() -> Iterator[Temptation]:
    """Yield questions about what an assistant cannot know, or that rest on something false."""
    for entry in _WRITTEN["honesty"]:
        for asked in entry["asked"]:
            yield Temptation(entry["principle"], asked, entry["kept"], entry["broken"])


def _wordings(entries: list[dict[str, Any]]) -> Iterator[Answered]:
    for entry in entries:
        for asked in entry["asked"]:
            yield asked, entry["answer"]
