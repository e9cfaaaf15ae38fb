"""Labelled texts with their source and licence; it knows where they may be used, not how they are learnt."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from turnwise_training.data.readers import read_values
from turnwise_training.data.rows import Conversation, Row, Text
from turnwise_training.data.sources import read_rows
from turnwise_training.errors import DataError
from turnwise_training.safety.labels import labels_of

Licences = Literal["permissive", "all"]

PERMISSIVE: Final = ("MIT", "Apache", "CC0", "CC-BY-4", "CC-BY-SA")
"""What a licence must start with for weights that ship to be trained on it."""

NO_CATEGORY: Final = "none"
"""The category of a harmless text that does not even look harmful."""

Kind = Literal["ordinary", "hard_safe", "request", "content"]
"""What a text is: an ordinary harmless one, an alarming harmless one, a harmful request, or a remark that people
judged for a moderation data set, harmful or not."""


@dataclass(frozen=True)
class SafetyRow:
    """A text and what is known about it."""

    text: str
    unsafe: bool
    labels: frozenset[str] | None
    """Its categories; None for an unsafe text whose categories nobody wrote down."""
    source: str
    licence: str
    kind: Kind
    place: str = ""
    """File and line, for people who read what a detector refuses."""

    @property
    def is_permissive(self) -> bool:
        """Tell whether weights that ship may be trained on it."""
        return self.licence.startswith(PERMISSIVE)


def read_labelled(path: Path) -> Iterator[SafetyRow]:
    """Yield the safe and unsafe rows of a file with prompt, label, category, source and license.

    Borderline rows are passed over: people disagree on them. Raises DataError naming file and line, never the text.
    """
    for where, value in read_values(path):
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected an object with prompt, label, category, source and license")
        try:
            text, label, category = value["prompt"], value["label"], str(value["category"] or NO_CATEGORY)
            source, licence = str(value["source"]), str(value["license"])
        except KeyError as key:
            raise DataError(f"{where}: the row has no {key}") from None
        if not _is_text(text):
            raise DataError(f"{where}: the prompt must be a text of whole characters")
        if label not in ("safe", "unsafe", "borderline"):
            raise DataError(f"{where}: label must be safe, unsafe or borderline, not {label!r}")
        if label != "borderline" and text.strip():
            unsafe = label == "unsafe"
            known = labels_of(category) if unsafe else frozenset()
            kind = _kind(path, category, unsafe=unsafe)
            yield SafetyRow(text, unsafe, known, source, licence, kind, str(where))


def _is_text(value: object) -> bool:
    """Return whether a value is a text that can be sent; JSON may hold half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _kind(path: Path, category: str, *, unsafe: bool) -> Kind:
    if "content" in path.name:
        return "content"
    if unsafe:
        return "request"
    return "hard_safe" if category != NO_CATEGORY or "hard_safe" in path.name else "ordinary"


def read_ordinary(path: Path, *, source: str, licence: str, most: int, seed: int) -> list[SafetyRow]:
    """Return the first user turns, or the texts, of a file of conversations or text as safe rows, `most` at random."""
    texts = list(dict.fromkeys(text for row in read_rows(path) if (text := _opening(row).strip())))
    random.Random(seed).shuffle(texts)
    return [SafetyRow(text, False, frozenset(), source, licence, "ordinary") for text in texts[:most]]


def _opening(row: Row) -> str:
    if isinstance(row, Text):
        return row.text
    messages = row.messages if isinstance(row, Conversation) else row.prompt
    return next((each["content"] for each in messages if each["role"] == "user"), "")


def permitted(rows: Iterable[SafetyRow], *, licences: Licences, excluded: Sequence[str]) -> list[SafetyRow]:
    """Return the rows that training may read: under `permissive` those whose licence allows weights that ship.

    Sources in `excluded` are left out whatever their licence says.
    """
    return [
        row
        for row in rows
        if row.source.partition("/")[0] not in excluded
        and row.source not in excluded
        and (licences == "all" or row.is_permissive)
    ]
