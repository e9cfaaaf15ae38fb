"""The refusal layer under one policy: reads texts in all their forms, and remembers what it read.

It is immutable but for its memory. When the policy changes, another layer takes its place; requests keep the one that
they began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.refusal.declined import declined_turns
from turnwise_server.chat.refusal.leak import new_canary
from turnwise_server.chat.refusal.normalise import forms
from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_categories import Category
from turnwise_server.chat.refusal.policy_file import LoadedPolicy
from turnwise_server.chat.refusal.policy_texts import FLAGGED_TEXT, LEAK_TEXT, stop_texts
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.texts import InputText
from turnwise_server.chat.refusal.verdict import Place
from turnwise_server.chat.refusal.verdict_cache import VerdictCache
from turnwise_server.chat.refusal.windows import windows
from turnwise_server.moderation.detector import Detector, Sample
from turnwise_server.moderation.panel import OnAsked, Panel
from turnwise_server.moderation.readings import Reading, merge

REMEMBERED_TEXTS = 20_000
"""Of each kind; about 40 MB at most."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A window of a form of a text."""

    text: int
    """Index of the text."""
    sample: Sample
    place: Place


class RefusalLayer:
    """One policy, and the detectors that serve it."""

    def __init__(self, loaded: LoadedPolicy, detectors: Mapping[str, Detector]) -> None:
        """Take the detectors that the policy names, by id."""
        self.loaded = loaded
        self.policy: Policy = loaded.policy
        self._panels: dict[Stage, Panel] = {
            "input": Panel(loaded.policy, "input", detectors),
            "output": Panel(loaded.policy, "output", detectors),
        }
        self._categories = {category.id: category for category in loaded.policy.categories}
        own_texts = (text for each in loaded.policy.categories for text in stop_texts(each))
        self._stop_texts = frozenset(text.strip() for text in (LEAK_TEXT, FLAGGED_TEXT, *own_texts))
        self.canary = new_canary() if loaded.policy.leak.canary else ""
        """A word that no reply may hold, for system texts; "" if the policy wants none."""
        self._known: VerdictCache[Reading] = VerdictCache(REMEMBERED_TEXTS)
        self._replied: VerdictCache[Reading] = VerdictCache(REMEMBERED_TEXTS)
        """Replies that passed. A request may not say all that a reply may, so they are known as replies only."""

    @property
    def unguarded(self) -> dict[Stage, frozenset[str]]:
        """The grave categories about which something should be done, and that no detector can find, by stage."""
        found: dict[Stage, frozenset[str]] = {}
        for stage, panel in self._panels.items():
            wanted = {
                each.id
                for each in self.policy.categories
                if each.on_error == "closed"
                and (each.input if stage == "input" else each.output).action != "allow"
            }
            if missing := frozenset(wanted) - panel.covered:
                found[stage] = missing
        return found

    @property
    def overridable(self) -> frozenset[str]:
        """The categories that a request may override whose key is allowed to."""
        return frozenset(self._categories) - frozenset(self.policy.override.never)

    def category(self, name: str) -> Category:
        """Return a category of the policy."""
        return self._categories[name]

    def declined(self, messages: Sequence[ClientMessage]) -> frozenset[int]:
        """Return the indices of messages that were declined before, and of what they were declined with."""
        return declined_turns(messages, self._stop_texts)

    def vouch(self, reply: str) -> None:
        """Remember a reply that passed the checks of the output: it will come back in its conversation's history."""
        if reply.strip():
            self._replied.put(self.loaded.sha256, reply, Reading())

    async def read_input(self, texts: Sequence[InputText], on_asked: OnAsked) -> Reading:
        """Return what all detectors say of what a client sent; texts that are known are not judged again."""
        known = [self._remembered(each) for each in texts]
        unknown = [each.text for each, reading in zip(texts, known, strict=True) if reading is None]
        fresh = iter(await self.read(unknown, "input", on_asked))
        found: list[Reading] = []
        for each, reading in zip(texts, known, strict=True):
            if reading is None:
                reading = next(fresh)
                if not reading.unchecked:
                    self._known.put(self.loaded.sha256, each.text, replace(reading, shadow={}))
            found.append(reading.at(each.origin, each.turn))
        return merge(found)

    def _remembered(self, text: InputText) -> Reading | None:
        known = self._known.get(self.loaded.sha256, text.text)
        if known is None and text.origin == "assistant":
            return self._replied.get(self.loaded.sha256, text.text)
        return known

    async def read(
        self, texts: Sequence[str], stage: Stage, on_asked: OnAsked, *, question: str = ""
    ) -> list[Reading]:
        """Return what all detectors say of each text, in any of its forms and windows."""
        if not texts:
            return []
        # In a thread: disguises are undone at about a microsecond for each character.
        pieces = await asyncio.to_thread(self._pieces, texts, stage, question)
        readings = await self._panels[stage].read(
            [piece.sample for piece in pieces], [piece.place for piece in pieces], on_asked
        )
        of_texts: list[list[Reading]] = [[] for _ in texts]
        for piece, reading in zip(pieces, readings, strict=True):
            of_texts[piece.text].append(reading)
        return [merge(each) for each in of_texts]

    def _pieces(self, texts: Iterable[str], stage: Stage, question: str) -> list[_Piece]:
        policy = self.policy
        return [
            _Piece(
                index,
                Sample(window.text, stage, question),
                Place(form=window.form, start=window.start, end=window.end),
            )
            for index, text in enumerate(texts)
            for window in windows(forms(text, policy.normaliser), policy.input)
        ]
