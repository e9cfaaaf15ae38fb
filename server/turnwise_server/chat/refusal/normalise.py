"""A text in all the forms that are judged: the canonical one, and what it may be a disguise of. Pure.

A detector judges every form, and the highest score counts. Ordinary texts have one form.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from turnwise_server.chat.refusal.canonical import canonical, visible
from turnwise_server.chat.refusal.carriers import from_literals, from_tables
from turnwise_server.chat.refusal.encodings import DECODERS
from turnwise_server.chat.refusal.leet import readings
from turnwise_server.chat.refusal.policy_stages import Normaliser
from turnwise_server.chat.refusal.readable import has_words, is_readable
from turnwise_server.chat.refusal.spelling import is_spelled, join_spelled_eagerly

CANONICAL: Final = "canonical"
_TAGS: Final = re.compile("[\U000e0020-\U000e007e]+")
_UNTAGGED: Final = {0xE0000 + code: code for code in range(0x20, 0x7F)}
_REREAD: Final = ("rot13", "reversed")
"""Encodings that any text can be read in; their readings are not decoded again unless words come out."""


@dataclass(frozen=True, slots=True)
class Form:
    """One reading of a text; `name` is for the audit: "canonical", "leet", "base64", "base64+rot13"."""

    name: str
    text: str


def forms(text: str, settings: Normaliser) -> tuple[Form, ...]:
    """Return the forms of `text` that are to be judged, the canonical one first, each text once.

    At most `settings.max_decoded` texts are decoded, however deep they are nested. All in all the forms are at most a
    small multiple of the text.
    """
    unique: dict[str, Form] = {}
    for name, reading in _readings(text, settings):
        if reading or name == CANONICAL:
            unique.setdefault(reading, Form(name, reading))
    return tuple(unique.values())


def _readings(text: str, settings: Normaliser) -> Iterator[tuple[str, str]]:
    yield from _undisguised(text, settings)
    for path, found in _decoded(text, settings):
        for name, reading in found:
            yield path if name == CANONICAL else f"{path}+{name}", reading


def _undisguised(text: str, settings: Normaliser) -> Iterator[tuple[str, str]]:
    """Yield a text as it reads without decoding: canonical, spelled words joined, signs as letters, parts alone."""
    plain = _canonical(text, settings)
    yield CANONICAL, plain
    if settings.collapse_spacing and is_spelled(text):
        joined = join_spelled_eagerly(_canonical(text, settings, collapse_spacing=False))
        yield "spelled", _canonical(joined, settings)
    if settings.leet:
        for reading in readings(plain):
            yield "leet", _canonical(reading, settings)
    yield "table", from_tables(plain)
    yield "literals", from_literals(plain)


def _canonical(text: str, settings: Normaliser, *, collapse_spacing: bool = True) -> str:
    return canonical(
        text,
        nfkc=settings.nfkc,
        strip_invisible=settings.strip_invisible,
        confusables=settings.confusables,
        collapse_spacing=settings.collapse_spacing and collapse_spacing,
    )


def _decoded(text: str, settings: Normaliser) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield readable texts hidden in `text`, and in those, nearest first, each in the forms it has itself."""
    hidden = "".join(_TAGS.findall(text)).translate(_UNTAGGED)
    shown = visible(text, nfkc=settings.nfkc, strip_invisible=settings.strip_invisible)
    queue = deque([("", shown)])
    found = 0
    if hidden:
        undisguised = list(_undisguised(hidden, settings))
        if any(has_words(each) for _, each in undisguised):
            yield "tags", undisguised
        queue.append(("tags", hidden))
    for _ in range(2 * settings.max_decoded):
        if not queue:
            return
        path, source = queue.popleft()
        for encoding in settings.decode:
            reading = DECODERS[encoding](source)
            if not reading:
                continue
            name = f"{path}+{encoding}" if path else encoding
            undisguised = list(_undisguised(reading, settings))
            is_found = any(is_readable(each) for _, each in undisguised)
            if is_found:
                yield name, undisguised
                found += 1
            if found == settings.max_decoded:
                return
            if is_found or encoding not in _REREAD:
                queue.append((name, reading))
