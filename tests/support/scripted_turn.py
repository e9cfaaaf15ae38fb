"""A reply whose events are written down: what the output stage guards in its tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import zip_longest

from turnwise_server.chat.turn import ChoiceFinished, TextDelta, TurnEvent
from turnwise_server.engine.timeline import Timeline


class ScriptedTurn:
    """Yields the events of every choice in turn, `delay_s` apart."""

    def __init__(
        self, *choices: Sequence[TurnEvent], delay_s: float = 0.0, fault: Exception | None = None
    ) -> None:
        """End with `fault`, if there is one."""
        self._choices = choices
        self._delay_s = delay_s
        self._fault = fault
        self.cancelled: set[int] = set()
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.timelines: tuple[Timeline, ...] = ()

    @property
    def is_cancelled(self) -> bool:
        """Whether no choice is generated any more."""
        return len(self.cancelled) == len(self._choices)

    def cancel(self) -> None:
        """Stop every choice."""
        self.cancelled.update(range(len(self._choices)))

    def cancel_choice(self, index: int) -> None:
        """Stop one choice."""
        self.cancelled.add(index)

    async def __aiter__(self) -> AsyncIterator[TurnEvent]:
        """Yield what is not cancelled."""
        for events in zip_longest(*self._choices):
            for index, event in enumerate(events):
                await asyncio.sleep(self._delay_s)
                if event is not None and index not in self.cancelled:
                    self.completion_tokens += 1
                    yield event
        if self._fault is not None:
            raise self._fault


def text_events(text: str, chunk_sizes: Sequence[int] = (1,), *, index: int = 0) -> list[TurnEvent]:
    """Return the events of a choice that says `text`, in chunks of these sizes, again and again."""
    events: list[TurnEvent] = []
    at, turn = 0, 0
    while at < len(text):
        size = chunk_sizes[turn % len(chunk_sizes)]
        events.append(TextDelta(index, text[at : at + size]))
        at, turn = at + size, turn + 1
    return [*events, ChoiceFinished(index, "stop")]
