"""Keeps the deltas of one choice until their text may be shown. Pure.

What is checked is one text: content, then each call's name and arguments, in the order in which the model wrote them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from turnwise_server.chat.turn import TextDelta, ToolCallDelta

Delta = TextDelta | ToolCallDelta


class HeldDeltas:
    """A queue of deltas, measured in characters of the checked text."""

    def __init__(self) -> None:
        self._deltas: deque[tuple[int, Delta]] = deque()
        """Deltas with the offset at which the text of each begins."""
        self._taken = 0
        self._added = 0
        self.sent_chars = 0
        """Characters of content and arguments that were taken out."""
        self.held_chars = 0
        """Characters of content and arguments that wait."""
        self.has_sent = False
        """Whether anything was taken out, the name of a call or logprobs among it."""

    def add(self, delta: Delta) -> str:
        """Keep a delta and return the text that is to be checked for it."""
        text = _checked_text(delta)
        self._deltas.append((self._added, delta))
        self._added += len(text)
        self.held_chars += len(_shown_text(delta))
        return text

    def take(self, end: int, *, is_all: bool) -> list[Delta]:
        """Take out what lies before offset `end`, which does not fall; `is_all` says that nothing is to wait.

        A delta that reaches beyond `end` is split; its logprobs wait for its last character. One without text waits
        for the first character that may be shown: nothing leaves before the first check.
        """
        ready: list[Delta] = []
        while self._deltas:
            start, delta = self._deltas[0]
            delta_end = start + len(_checked_text(delta))
            if not (0 < delta_end <= end or is_all):
                break
            self._deltas.popleft()
            ready.append(_without(delta, self._taken - start))
            self._taken = delta_end
        if self._deltas and self._taken < end and _can_be_split(self._deltas[0][1]):
            start, delta = self._deltas[0]
            ready.append(_part(delta, self._taken - start, end - start))
            self._taken = end
        sent = sum(len(_shown_text(delta)) for delta in ready)
        self.sent_chars += sent
        self.held_chars -= sent
        self.has_sent |= bool(ready)
        return ready

    def recall(self) -> None:
        """Take note that what was taken out has not been shown, nor will it be."""
        self.held_chars += self.sent_chars
        self.sent_chars = 0


def _checked_text(delta: Delta) -> str:
    # The lines keep content, name and arguments from running together into words that nobody wrote.
    if isinstance(delta, ToolCallDelta) and delta.id is not None:
        return f"\n{delta.name}\n{delta.arguments}"
    return _shown_text(delta)


def _shown_text(delta: Delta) -> str:
    return delta.text if isinstance(delta, TextDelta) else delta.arguments


def _can_be_split(delta: Delta) -> bool:
    return isinstance(delta, TextDelta) or delta.id is None


def _without(delta: Delta, taken: int) -> Delta:
    """Return the rest of a delta of which `taken` characters are out already."""
    if taken <= 0:
        return delta
    if isinstance(delta, TextDelta):
        return replace(delta, text=delta.text[taken:])
    return replace(delta, arguments=delta.arguments[taken:])


def _part(delta: Delta, start: int, end: int) -> Delta:
    """Return characters `start` to `end` of a delta, without its logprobs."""
    if isinstance(delta, TextDelta):
        return replace(delta, text=delta.text[start:end], logprobs=())
    return replace(delta, arguments=delta.arguments[start:end], logprobs=())
