"""Runs one reply of whatever kind, whole or streamed: its deadline, its client, its faults, its line in the log.

What a reply looks like on the wire is the business of the routes: they turn events into one body or into frames.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwise_server.api.errors import ApiError, ErrorReply, deadline_passed, error_reply, shutting_down
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.refusal.auditing import Origin, audit_records
from turnwise_server.api.refusal.guarding import GuardedReply, ReplyEvent
from turnwise_server.api.refusal.refused import Refused
from turnwise_server.api.services import Services
from turnwise_server.api.sse import EventStream
from turnwise_server.api.supervision import Interrupted, Interruption, disconnected, supervise
from turnwise_server.api.telemetry.request_facts import ReplyFacts
from turnwise_server.api.telemetry.request_log import CLIENT_GONE, RequestRecord
from turnwise_server.chat.refusal.guarded_choice import Blocked
from turnwise_server.chat.refusal.guarded_turn import GuardedTurn
from turnwise_server.chat.turn import ChoiceFinished, PreparedTurn, Turn
from turnwise_server.errors import TurnwiseError
from turnwise_server.log import describe_exception, get_logger


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that the engine has queued."""

    services: Services
    record: RequestRecord
    model: ServedModel
    prepared: PreparedTurn
    turn: Turn | GuardedTurn
    guarded: GuardedReply | None = None
    """The refusal layer in front of `turn`, if there is one."""
    finish_reasons: list[str] = field(default_factory=list)
    """One for each choice that has come to its end."""

    async def events(self) -> AsyncIterator[ReplyEvent]:
        """Yield the events of the reply, as its client may see them.

        Raises:
            ModerationUnavailableError: what may not be shown unchecked could not be checked.
            EngineDeadError: the engine ended before the reply did.
        """
        async for event in self._turn_events():
            if isinstance(event, ChoiceFinished | Refused):
                self.finish_reasons.append(event.finish_reason)
            yield event
        # A clean end would make half a reply look like a whole one.
        if unfinished := self.prepared.choices - len(self.finish_reasons):
            raise RuntimeError(f"{unfinished} choices ended without a finish reason")

    async def _turn_events(self) -> AsyncIterator[ReplyEvent]:
        if self.guarded is None:
            async for event in self.turn:
                assert not isinstance(event, Blocked), "nothing blocks where nothing is guarded"
                yield event
            return
        async for shown in self.guarded.events(self.prepared):
            if isinstance(shown, Refused):
                self.record.headers["x-refusal"] = shown.header
                self.services.metrics.safety.refused(stage=shown.stage, category=shown.category)
            yield shown
        if self.guarded.is_unchecked:
            self.record.headers["x-moderation"] = "skipped"

    async def whole(
        self, body: Coroutine[Any, Any, bytes], receive: Receive, headers: Mapping[str, str]
    ) -> Response:
        """Return the reply when `body`, which reads the events to their end, has made its JSON.

        Raises:
            ApiError: the deadline passed, or the server had to stop.
            EngineDeadError: the engine ended before the reply did.
        """
        try:
            content = await supervise(
                body,
                until={
                    Interruption.CLIENT_GONE: disconnected(receive),
                    Interruption.SHUTDOWN: self.services.lifecycle.aborted.wait(),
                },
                timeout_s=self.remaining_s(),
            )
        except Interrupted as interrupted:
            error = self.interrupted(interrupted.reason)
            if interrupted.reason is Interruption.CLIENT_GONE:
                self.record.status = CLIENT_GONE
                return Response(status_code=CLIENT_GONE)
            raise ApiError(error) from interrupted
        finally:
            self.close()
        return Response(content, media_type="application/json", headers=dict(headers))

    async def unattended(
        self, work: Coroutine[Any, Any, None], cancelled: Coroutine[Any, Any, object]
    ) -> ErrorReply | None:
        """Do `work`, which reads the events to their end, whether a client waits or not; return why it was not done.

        It stops early when `cancelled` returns.
        """
        try:
            await supervise(
                work,
                until={
                    Interruption.CANCELLED: cancelled,
                    Interruption.SHUTDOWN: self.services.lifecycle.aborted.wait(),
                },
                timeout_s=self.remaining_s(),
            )
        except Interrupted as interrupted:
            return self.interrupted(interrupted.reason)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            return _explain(error, self.record)
        finally:
            self.close()
        return None

    def close(self) -> None:
        """Free the engine's slots and note what was used, whatever became of the reply. To be called once."""
        self.turn.cancel()
        facts, arrived = self._facts(), self.record.started
        self.record.reply = facts
        self.record.facts.update(facts.log_fields(arrived))
        self.record.allowance.use(facts.prompt_tokens + facts.completion_tokens)
        self.services.metrics.reply_ended(facts, arrived=arrived, ended=time.perf_counter())
        if self.guarded is not None:
            self._record_decisions(self.guarded)

    def _record_decisions(self, guarded: GuardedReply) -> None:
        origin = Origin(
            self.record.request_id, self.prepared.id, self.model.name, self.record.key_id, guarded.user
        )
        for record in audit_records(guarded, origin):
            self.services.metrics.safety.decided(record)
            if self.services.enforcement is not None:
                self.services.enforcement.record(record)
        for asked in guarded.guard.asked.values():
            self.services.metrics.safety.detectors_asked(asked)
        for reading in guarded.guard.readings:
            for detector in filter(reading.disagrees, reading.shadow):
                self.services.metrics.safety.shadow_disagreed(detector)

    def _facts(self) -> ReplyFacts:
        sampling = self.prepared.sampling
        return ReplyFacts(
            id=self.prepared.id,
            model=self.model.name,
            n=self.prepared.choices,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            prompt_tokens=self.prepared.prompt_tokens,
            completion_tokens=self.turn.completion_tokens,
            cached_tokens=self.turn.cached_tokens,
            finish_reasons=tuple(self.finish_reasons),
            timelines=self.turn.timelines,
        )

    def remaining_s(self) -> float:
        """Return how many seconds the reply may still take."""
        return self.services.settings.request_timeout_s - self.record.elapsed_ms() / 1000

    def interrupted(self, reason: Interruption) -> ErrorReply:
        """Count a reply that was stopped, and say why the server stopped it."""
        self.services.metrics.reply_cancelled(reason)
        if reason is Interruption.DEADLINE:
            return deadline_passed(self.services.settings.request_timeout_s)
        return shutting_down()


class Streamable(Protocol):
    """What a stream needs to know of what it shows: a reply, or somebody's view of one."""

    @property
    def services(self) -> Services: ...

    @property
    def record(self) -> RequestRecord:
        """The request that the stream answers."""
        ...

    def remaining_s(self) -> float:
        """Return how many seconds the stream may still take."""
        ...

    def interrupted(self, reason: Interruption) -> ErrorReply:
        """Take note that the stream was stopped, and say why the server stopped it."""
        ...

    def close(self) -> None:
        """Free what it needs. To be called once."""
        ...


class StreamedReply(Response):
    """A reply as server-sent events. Once the first byte is out, a failure is an event and never a clean end."""

    def __init__(
        self,
        reply: Streamable,
        frames: AsyncIterator[bytes],
        failure: Callable[[ErrorReply], bytes],
        headers: Mapping[str, str],
    ) -> None:
        """Stream `frames`, of which the first must come before the first token.

        `failure` writes the frame that ends a stream which cannot be completed.
        """
        super().__init__()
        self._reply = reply
        self._frames = frames
        self._failure = failure
        self._reply_headers = headers

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        reply, settings = self._reply, self._reply.services.settings
        stream = EventStream(
            send,
            self._reply_headers,
            ping_interval_s=settings.ping_interval_s,
            send_timeout_s=settings.send_timeout_s,
        )
        try:
            await supervise(
                self._send_frames(stream),
                until={
                    Interruption.CLIENT_GONE: disconnected(receive),
                    Interruption.CLIENT_TOO_SLOW: stream.watch(),
                    Interruption.SHUTDOWN: reply.services.lifecycle.aborted.wait(),
                },
                timeout_s=reply.remaining_s(),
            )
        except Interrupted as interrupted:
            await self._end_early(stream, interrupted.reason)
        except Exception as error:  # noqa: BLE001 - the client must hear of any fault, not see a clean end
            await self._end_with_error(stream, _explain(error, reply.record))
        finally:
            reply.close()

    async def _send_frames(self, stream: EventStream) -> None:
        async for frames in self._frames:
            await stream.write(frames)
        await stream.write(b"", is_last=True)

    async def _end_early(self, stream: EventStream, reason: Interruption) -> None:
        record = self._reply.record
        error = self._reply.interrupted(reason)
        if reason in (Interruption.CLIENT_GONE, Interruption.CLIENT_TOO_SLOW):
            record.status = CLIENT_GONE
            record.facts["error"] = reason.value
        else:
            await self._end_with_error(stream, error)

    async def _end_with_error(self, stream: EventStream, error: ErrorReply) -> None:
        self._reply.record.facts["error"] = error.code
        await stream.end(self._failure(error))


def _explain(error: Exception, record: RequestRecord) -> ErrorReply:
    """Return what the client learns of a fault; one that nobody expected goes to the log."""
    if not isinstance(error, TurnwiseError):
        get_logger().error("unexpected_error", request_id=record.request_id, **describe_exception(error))
    return error_reply(error, record.request_id)
