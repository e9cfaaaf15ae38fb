"""Finds stop strings in streamed text and never lets one out, nor a part of one. Pure text, no tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStringMatcher:
    """Releases text up to the first stop string; holds back what may yet become one.

    The outcome depends on the text alone, never on how it was cut into pieces: the stop string that is complete first
    wins, the longest of those that end at the same character.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found."""

    def feed(self, text: str) -> str:
        """Take more text and return what may be shown now. After a match nothing more comes out."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        ends = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if ends:
            end, start = min(ends)
            self.matched = self._held[start:end]
            released, self._held = self._held[:start], self._held[start:]
            return released
        hold = max(overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - hold
        released, self._held = self._held[:cut], self._held[cut:]
        return released

    @property
    def held(self) -> int:
        """How many characters are held back; after a match those from the stop string on."""
        return len(self._held)

    def flush(self) -> str:
        """Return what was held back, now that no more text will come; nothing after a match."""
        if self.matched is not None:
            return ""
        released, self._held = self._held, ""
        return released


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that `stop` begins with, but is not yet complete."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
