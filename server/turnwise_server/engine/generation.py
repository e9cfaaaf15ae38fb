"""A sequence being generated, as the server sees it: an async iterator that the engine pushes events into."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from turnwise_server.engine.base import TokenEvent
from turnwise_server.engine.timeline import Timeline
from turnwise_server.errors import EngineError


class PushedGeneration:
    """Implements `Generation`. Everything happens in one event loop; no call blocks."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.timeline = Timeline()
        self._cancel = cancel
        self._events: deque[TokenEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: EngineError | None = None
        self._is_closed = False

    def __aiter__(self) -> PushedGeneration:
        """Return itself."""
        return self

    async def __anext__(self) -> TokenEvent:
        """Return the next token; see `Generation`."""
        while not self._events:
            if self._error:
                raise self._error
            if self._is_closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()

    def cancel(self) -> None:
        """Stop generating; see `Generation`."""
        if not self._is_closed:
            self._cancel()
        self._events.clear()
        self._error = None
        self._close()

    def push(self, event: TokenEvent) -> None:
        """Hand over one token."""
        self.timeline.mark_token()
        self._events.append(event)
        if event.finish_reason:
            self._is_closed = True
        self._wake()

    def fail(self, error: EngineError) -> None:
        """End with an error, at once: tokens not yet read are lost."""
        self._events.clear()
        self._error = error
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
