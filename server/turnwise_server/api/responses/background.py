"""Responses that are made in the background: they outlive the connection that asked for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwise_server.api.errors import ErrorReply, deadline_passed, shutting_down
from turnwise_server.api.reply import Reply, StreamedReply
from turnwise_server.api.responses.draft import response_usage
from turnwise_server.api.responses.storage import KeptResponses
from turnwise_server.api.responses.wire import ModelResponse
from turnwise_server.api.responses.writer import ResponseWriter, error_frame
from turnwise_server.api.services import Services
from turnwise_server.api.supervision import Interruption
from turnwise_server.api.telemetry.request_log import RequestRecord
from turnwise_server.errors import StoreError

EVENTS_KEPT_S = 300
"""How long the events of a response that has ended can still be read."""

EVENTS_KEPT_BYTES = 16 * 2**20
"""How much memory such events may take together; the oldest go first."""

VIEW_GRACE_S = 5
"""How much longer than a response may take one may look at it."""


class BackgroundReply:
    """One response in the making, with the events that tell it."""

    def __init__(
        self, reply: Reply, writer: ResponseWriter, kept: KeptResponses, *, has_stream: bool
    ) -> None:
        """Take over a reply that the engine has queued; `has_stream` keeps its events for readers."""
        self.has_stream = has_stream
        self.events: list[bytes] = []
        """Frames, each at the place of its sequence number."""
        self.ended_at: float | None = None
        """When it ended, by `time.monotonic()`."""
        self._reply = reply
        self._writer = writer
        self._kept = kept
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._publish(writer.created())
        self._task = asyncio.create_task(self._run())

    @property
    def response(self) -> ModelResponse:
        """The response as it stands."""
        return self._writer.response

    async def cancel(self) -> None:
        """Stop it, and return when it has ended; a no-op if it has."""
        self._stop.set()
        await self.ended()

    async def ended(self) -> None:
        """Return when it has ended, and its end is stored."""
        await asyncio.wait({self._task})

    async def events_after(self, number: int) -> AsyncIterator[bytes]:
        """Yield the events after `number`, as they happen, to the last one. What comes first is empty and at once."""
        at = number + 1
        yield b""
        while True:
            changed, is_over = self._changed, self.ended_at is not None
            if at < len(self.events):
                frames, at = self.events[at:], len(self.events)
                yield b"".join(frames)
            elif is_over:
                return
            else:
                await changed.wait()

    async def _run(self) -> None:
        try:
            error = await self._reply.unattended(self._write(), self._stop.wait())
            if error is not None:
                await self._break_off(error)
        finally:
            self.ended_at = time.monotonic()
            self._publish(b"")

    async def _write(self) -> None:
        reply, writer = self._reply, self._writer
        async for event in reply.events():
            if self.response.status == "queued":
                self._publish(writer.started())
            self._publish(writer.event(event))
        writer.finish(response_usage(reply.prepared, reply.turn))
        await self._kept.settle(self.response)
        self._publish(writer.finished())

    async def _break_off(self, error: ErrorReply) -> None:
        frames = self._writer.cancelled() if self._stop.is_set() else self._writer.failed(error)
        # An end that cannot be stored is noticed later: the response is found without one, and taken for lost.
        with contextlib.suppress(StoreError):
            await self._kept.settle(self.response)
        self._publish(frames)

    def _publish(self, frames: bytes) -> None:
        if self.has_stream:
            self.events.extend(frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1])
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class BackgroundReplies:
    """The background responses of a server: those that run, and for a while the events of those that ran."""

    def __init__(self) -> None:
        self._replies: dict[tuple[str, str], BackgroundReply] = {}

    def add(self, owner: str, background: BackgroundReply) -> None:
        """Let a response be found."""
        self._forget()
        self._replies[owner, background.response.id] = background

    def running(self, owner: str, response_id: str) -> BackgroundReply | None:
        """Return a response that has not ended, if there is one."""
        found = self._replies.get((owner, response_id))
        return found if found is not None and found.ended_at is None else None

    def with_events(self, owner: str, response_id: str) -> BackgroundReply | None:
        """Return a response whose events can be read, if there is one."""
        self._forget()
        found = self._replies.get((owner, response_id))
        return found if found is not None and found.has_stream else None

    def remove(self, owner: str, response_id: str) -> None:
        """Let a response be found no more."""
        self._replies.pop((owner, response_id), None)

    def _forget(self) -> None:
        """Drop what has ended, except recent events that fit in memory."""
        too_old, room = time.monotonic() - EVENTS_KEPT_S, EVENTS_KEPT_BYTES
        for key, reply in reversed(list(self._replies.items())):
            if reply.ended_at is not None:
                room -= sum(map(len, reply.events))
                if not reply.has_stream or reply.ended_at < too_old or room < 0:
                    del self._replies[key]


def background_of(request: Request) -> BackgroundReplies:
    """Return the background responses of the application that handles the request."""
    return cast("BackgroundReplies", request.app.state.background)


@dataclass(frozen=True, slots=True)
class BackgroundView:
    """What a stream of the events needs to know: the response does not depend on who looks at it."""

    services: Services
    record: RequestRecord

    def remaining_s(self) -> float:
        """Return how many seconds there are still to look; enough to see a response end by its own deadline."""
        return self.services.settings.request_timeout_s + VIEW_GRACE_S - self.record.elapsed_ms() / 1000

    def interrupted(self, reason: Interruption) -> ErrorReply:
        """Say why the server shows no more."""
        if reason is Interruption.DEADLINE:
            return deadline_passed(self.services.settings.request_timeout_s)
        return shutting_down()

    def close(self) -> None:
        """Free nothing."""


def stream_events(
    background: BackgroundReply,
    view: BackgroundView,
    *,
    after: int = -1,
    headers: Mapping[str, str] | None = None,
) -> StreamedReply:
    """Show the events after a sequence number to a client, who may leave and come back."""

    def failure(error: ErrorReply) -> bytes:
        return error_frame(error, len(background.events))

    return StreamedReply(view, background.events_after(after), failure, headers or {})


class BackgroundStart(Response):
    """Answers the request that began a background response, and stays with it to its end.

    So the request holds its model, its place in its key's limits and in the drain for as long as its reply runs.
    """

    def __init__(self, answer: Response, background: BackgroundReply) -> None:
        super().__init__()
        self._answer = answer
        self._background = background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            await self._background.ended()
