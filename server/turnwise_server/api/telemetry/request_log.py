"""The outermost middleware: request ids, timing, the last resort for errors, and one log line a request."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_server.api.errors import ErrorReply, internal_error
from turnwise_server.api.lifecycle import Lifecycle
from turnwise_server.api.respond import send_error
from turnwise_server.api.telemetry.endpoints import Endpoints
from turnwise_server.api.telemetry.metrics import Metrics
from turnwise_server.api.telemetry.request_facts import ReplyFacts, RequestFacts
from turnwise_server.api.telemetry.trace_context import parse_traceparent
from turnwise_server.api.telemetry.tracing import Tracer
from turnwise_server.auth import KeyRecord
from turnwise_server.limits.limiter import Allowance, unlimited
from turnwise_server.log import describe_exception, get_logger

CLIENT_GONE = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "_OTHER"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(slots=True)
class RequestRecord:
    """What is known about a request while it runs; never content, keys or query strings."""

    request_id: str
    trace_id: str
    started: float = field(default_factory=time.perf_counter)
    created: int = field(default_factory=lambda: int(time.time()))
    """When it arrived, in seconds since 1970."""
    status: int = 0
    key: KeyRecord | None = None
    """The key it came with, where keys are needed."""
    allowance: Allowance = field(default_factory=unlimited)
    """What its key's limits leave it to use."""
    held: ExitStack = field(default_factory=ExitStack)
    """What the request holds until it has ended, however it ends."""
    reply: ReplyFacts | None = None
    """What became of the reply, if the engine had one to make."""
    headers: dict[str, str] = field(default_factory=dict)
    """More for the head of the response; what comes after that is not sent."""
    facts: dict[str, object] = field(default_factory=dict)
    """More for the log line: model, stream, token counts, finish reasons, error code."""

    @property
    def key_id(self) -> str:
        """Names the client; empty where no keys are needed, so that all clients are one."""
        return self.key.key_id if self.key else ""

    def elapsed_ms(self) -> float:
        """Return the time since the request arrived, in milliseconds."""
        return round((time.perf_counter() - self.started) * 1000, 1)


def record_of(scope: Scope) -> RequestRecord:
    """Return the record that `RequestLog` made for this request."""
    return cast("RequestRecord", scope["state"]["record"])


async def refuse(reply: ErrorReply, scope: Scope, send: Send) -> None:
    """Answer with an error from inside a middleware, and note it for the log."""
    record_of(scope).facts["error"] = reply.code
    await send_error(reply, send)


def accept_request_id(offered: str) -> str:
    """Return the client's request id if it is harmless, else a new one."""
    return offered if _REQUEST_ID.fullmatch(offered) else f"req_{secrets.token_hex(16)}"


class RequestLog:
    """ASGI middleware around everything else."""

    def __init__(
        self, app: ASGIApp, *, lifecycle: Lifecycle, metrics: Metrics, tracer: Tracer, endpoints: Endpoints
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = parse_traceparent(_headers(scope, b"traceparent"))
        trace = self._tracer.begin(caller, method=_method(scope), path=scope["path"])
        offered = next(iter(_headers(scope, b"x-request-id")), "")
        record = RequestRecord(accept_request_id(offered), trace.context.trace_id)
        scope.setdefault("state", {})["record"] = record
        is_started = False

        async def stamped_send(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                record.status = record.status or message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", record.request_id.encode()),
                    (b"traceparent", trace.context.traceparent.encode()),
                    (b"openai-processing-ms", str(int(record.elapsed_ms())).encode()),
                    *((name.encode(), value.encode()) for name, value in record.headers.items()),
                ]
            await send(message)

        try:
            with self._lifecycle.request(), record.held:
                await self._app(scope, receive, stamped_send)
        except Exception as error:  # noqa: BLE001 - the last resort: no fault of ours may end a connection mutely
            get_logger().error("unexpected_error", request_id=record.request_id, **describe_exception(error))
            if not is_started:
                await refuse(internal_error(record.request_id), scope, stamped_send)
        finally:
            facts = _facts(scope, record, self._endpoints.of(scope))
            self._metrics.request_ended(facts)
            trace.end(facts)
            _write_line(scope, record, facts.endpoint)


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _method(scope: Scope) -> str:
    """Return the method; one that nobody knows is none that anybody counts."""
    return scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD


def _facts(scope: Scope, record: RequestRecord, endpoint: str) -> RequestFacts:
    error = record.facts.get("error")
    return RequestFacts(
        request_id=record.request_id,
        method=_method(scope),
        endpoint=endpoint,
        status=record.status,
        model=str(record.facts.get("model", "")),
        stream=bool(record.facts.get("stream")),
        error=str(error) if error else None,
        reply=record.reply,
    )


def _write_line(scope: Scope, record: RequestRecord, endpoint: str) -> None:
    get_logger().info(
        "request",
        request_id=record.request_id,
        trace_id=record.trace_id,
        method=scope["method"],
        path=endpoint,
        status=record.status,
        duration_ms=record.elapsed_ms(),
        key_id=record.key_id or None,
        **record.facts,
    )
