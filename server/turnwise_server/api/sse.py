"""A `text/event-stream` on an ASGI connection: data frames, pings in silence, and an eye on slow readers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from starlette.types import Send

PING = b": ping\n\n"
"""A comment: the only keep-alive that every client ignores (an `event: ping` breaks some)."""

DONE = b"data: [DONE]\n\n"


def data_frame(json: bytes) -> bytes:
    """Frame one JSON document."""
    return b"data: " + json + b"\n\n"


class EventStream:
    """Sends frames to one client. `watch` runs beside and pings; `write` is called by the reply.

    The status and headers go out with the first frame, whichever that is.
    """

    def __init__(
        self, send: Send, headers: Mapping[str, str], *, ping_interval_s: float, send_timeout_s: float
    ) -> None:
        self._send = send
        self._headers = headers
        self._is_open = False
        self._ping_interval_s = ping_interval_s
        self._send_timeout_s = send_timeout_s
        self._last_sent = time.monotonic()
        self._sending_since: float | None = None

    async def write(self, frames: bytes, *, is_last: bool = False) -> None:
        """Send frames; waits while the client's buffers are full."""
        self._sending_since = time.monotonic()
        if not self._is_open:
            self._is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._raw_headers()})
        await self._send({"type": "http.response.body", "body": frames, "more_body": not is_last})
        self._last_sent = time.monotonic()
        self._sending_since = None

    async def end(self, frames: bytes) -> None:
        """Send the last frames, but do not wait long for a client that may be gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._send_timeout_s):
                await self.write(frames, is_last=True)

    async def watch(self) -> None:
        """Ping whenever nothing was sent for the interval; return when the client takes nothing for too long."""
        while True:
            now = time.monotonic()
            if self._sending_since is not None:
                wait_s = self._sending_since + self._send_timeout_s - now
                if wait_s <= 0:
                    return
            else:
                wait_s = self._last_sent + self._ping_interval_s - now
                if wait_s <= 0:
                    await self._ping()
                    continue
            await asyncio.sleep(min(wait_s, self._send_timeout_s, self._ping_interval_s))

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        fixed = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }
        return [(name.encode(), value.encode()) for name, value in (fixed | dict(self._headers)).items()]

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self.write(PING)
        except TimeoutError:
            self._sending_since = time.monotonic() - self._send_timeout_s
