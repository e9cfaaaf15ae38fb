"""POST /v1/chat/completions: admit a request, then reply whole or as a stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwise_server.api.body import read_json_object
from turnwise_server.api.chat_reply import ChunkWriter, ReplyIdentity, WholeReply, usage_of
from turnwise_server.api.chat_request import (
    ChatCompletionRequest,
    ignored_params,
    parse_chat_request,
    turn_request,
)
from turnwise_server.api.errors import ApiError, ErrorReply, deadline_passed, error_reply, shutting_down
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.request_log import CLIENT_GONE, RequestRecord, record_of
from turnwise_server.api.services import Services, new_id, services_of
from turnwise_server.api.sse import DONE, EventStream, data_frame
from turnwise_server.api.supervision import Interrupted, Interruption, supervise
from turnwise_server.api.wire import ChatCompletion
from turnwise_server.chat.turn import PreparedTurn, TextDelta, Turn, TurnEvent
from turnwise_server.errors import EngineError
from turnwise_server.log import describe_exception, get_logger

router = APIRouter()

MAX_NAMED_PARAMS = 16
"""How many ignored parameters the reply names."""

_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503, 504),
    openapi_extra=describe_json_body(ChatCompletionRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Reply to a conversation, whole or as server-sent events."""
    services, record = services_of(request), record_of(request.scope)
    services.lifecycle.require_open()
    timeout_s = services.settings.request_timeout_s
    body = await read_json_object(request, timeout_s=timeout_s)
    # Always in a thread: one tokenizer serves all, and waiting for it must not stall the streams that run.
    chat, prepared = await asyncio.to_thread(_prepare, services, record, body)
    services.lifecycle.require_open()
    reply = _Reply(services, record, chat, prepared, services.model.start(prepared))
    headers = _headers(prepared, body)
    if chat.stream:
        return StreamedReply(reply, headers)
    return await reply.whole(request.receive, headers)


def _prepare(
    services: Services, record: RequestRecord, body: Mapping[str, object]
) -> tuple[ChatCompletionRequest, PreparedTurn]:
    """Do all that can be done, and refuse all that can be refused, without the engine."""
    settings = services.settings
    chat = parse_chat_request(body, max_messages=settings.max_messages)
    services.require_model(chat.model)
    record.facts.update(model=chat.model, stream=bool(chat.stream))
    turn = turn_request(
        chat,
        id=new_id("chatcmpl"),
        tenant=record.key_id,
        default_max_tokens=settings.default_max_tokens,
        default_truncation=settings.truncation,
    )
    return chat, services.model.prepare(turn)


def _headers(prepared: PreparedTurn, body: Mapping[str, object]) -> dict[str, str]:
    """Say what was not done as asked."""
    headers = {}
    if prepared.dropped_messages:
        headers["x-context-truncated"] = str(prepared.dropped_messages)
    # Names come from the client: only those that are safe in a header are repeated.
    names = [name for name in ignored_params(body) if _HEADER_SAFE.fullmatch(name)]
    if names:
        headers["x-ignored-params"] = ", ".join(names[:MAX_NAMED_PARAMS])
    return headers


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that the engine has queued."""

    services: Services
    record: RequestRecord
    chat: ChatCompletionRequest
    prepared: PreparedTurn
    turn: Turn

    def identity(self) -> ReplyIdentity:
        return ReplyIdentity(
            id=self.prepared.id,
            created=self.record.created,
            model=self.chat.model,
            system_fingerprint=self.services.system_fingerprint,
        )

    def remaining_s(self) -> float:
        return self.services.settings.request_timeout_s - self.record.elapsed_ms() / 1000

    async def events(self) -> AsyncIterator[TurnEvent]:
        """Yield the events of the reply, keeping what the log wants to know."""
        unfinished = self.prepared.n
        async for event in self.turn:
            if isinstance(event, TextDelta):
                self.record.mark_first_token()
            else:
                self.record.facts.setdefault("finish_reason", event.finish_reason)
                unfinished -= 1
            yield event
        # A clean end would make half a reply look like a whole one.
        if unfinished:
            raise RuntimeError(f"{unfinished} choices ended without a finish reason")

    def close(self) -> None:
        """Free the engine's slots and note what was used; whatever became of the reply."""
        self.turn.cancel()
        self.record.facts.update(
            prompt_tokens=self.prepared.prompt_tokens,
            completion_tokens=self.turn.completion_tokens,
            cached_tokens=self.turn.cached_tokens,
        )

    async def whole(self, receive: Receive, headers: Mapping[str, str]) -> Response:
        """Return the reply when it is complete.

        Raises:
            ApiError: the deadline passed, or the server had to stop.
            EngineDeadError: the engine ended before the reply did.
        """
        lifecycle = self.services.lifecycle
        try:
            body = await supervise(
                self._collect(), receive=receive, aborted=lifecycle.aborted, timeout_s=self.remaining_s()
            )
        except Interrupted as interrupted:
            if interrupted.reason is Interruption.CLIENT_GONE:
                self.record.status = CLIENT_GONE
                return Response(status_code=CLIENT_GONE)
            raise ApiError(self.interruption_error(interrupted.reason)) from interrupted
        finally:
            self.close()
        return Response(body, media_type="application/json", headers=dict(headers))

    async def _collect(self) -> bytes:
        reply = WholeReply(self.identity(), n=self.prepared.n, has_logprobs=bool(self.chat.logprobs))
        async for event in self.events():
            reply.add(event)
        return reply.body(usage_of(self.prepared, self.turn))

    def interruption_error(self, reason: Interruption) -> ErrorReply:
        if reason is Interruption.DEADLINE:
            return deadline_passed(self.services.settings.request_timeout_s)
        return shutting_down()


class StreamedReply(Response):
    """A reply as server-sent events. Once the first byte is out, a failure is an event and never a clean end."""

    def __init__(self, reply: _Reply, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._reply = reply
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
                self._send_events(stream),
                receive=receive,
                aborted=reply.services.lifecycle.aborted,
                timeout_s=reply.remaining_s(),
                reader_gave_up=stream.watch(),
            )
        except Interrupted as interrupted:
            await self._end_early(stream, interrupted.reason)
        except EngineError as error:
            await self._end_with_error(stream, error_reply(error))
        except Exception as error:  # noqa: BLE001 - the client must hear of any fault, not see a clean end
            record = reply.record
            get_logger().error("unexpected_error", request_id=record.request_id, **describe_exception(error))
            await self._end_with_error(stream, error_reply(error, record.request_id))
        finally:
            reply.close()

    async def _send_events(self, stream: EventStream) -> None:
        reply = self._reply
        writer = ChunkWriter(reply.identity(), includes_usage=reply.chat.includes_usage)
        await stream.write(writer.opening(reply.prepared.n))
        async for event in reply.events():
            await stream.write(writer.event(event))
        usage = writer.usage(usage_of(reply.prepared, reply.turn)) if reply.chat.includes_usage else b""
        await stream.write(usage + DONE, is_last=True)

    async def _end_early(self, stream: EventStream, reason: Interruption) -> None:
        record = self._reply.record
        if reason in (Interruption.CLIENT_GONE, Interruption.CLIENT_TOO_SLOW):
            record.status = CLIENT_GONE
            record.facts["error"] = reason.value
        else:
            await self._end_with_error(stream, self._reply.interruption_error(reason))

    async def _end_with_error(self, stream: EventStream, error: ErrorReply) -> None:
        self._reply.record.facts["error"] = error.code
        await stream.end(data_frame(replace(error, type="server_error").body()))
