"""Knows what runs and whether more may start: open, then draining, then aborted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from turnwise_server.api.errors import ApiError, shutting_down
from turnwise_server.engine.base import EngineStats

STALL_TIMEOUT_S = 60.0
"""The engine is stuck if it had work for this long and finished no step."""


class Lifecycle:
    """Shared by every request of a server and by what shuts it down."""

    def __init__(self) -> None:
        self.requests = 0
        """How many requests are being answered."""
        self.is_draining = False
        self.aborted = asyncio.Event()
        """Set when replies that still run must end with an error."""
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        self.requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    def require_open(self) -> None:
        """Refuse new work while the server shuts down.

        Raises:
            ApiError: 503 shutting_down.
        """
        if self.is_draining:
            raise ApiError(shutting_down())

    async def drain(self, timeout_s: float) -> None:
        """Take no new work, wait for what runs, and abort what is left when the time is over."""
        self.is_draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self.aborted.set()


class StallDetector:
    """Tells a stuck engine from one that was idle until a moment ago."""

    def __init__(self) -> None:
        self._busy_since: float | None = None

    def is_stalled(self, stats: EngineStats, now: float | None = None) -> bool:
        """Look at the engine once more; call it often."""
        now = time.monotonic() if now is None else now
        if not stats.running and not stats.waiting:
            self._busy_since = None
            return False
        if self._busy_since is None:
            self._busy_since = now
        return min(now - self._busy_since, stats.seconds_since_step) > STALL_TIMEOUT_S
