"""Spans of OpenTelemetry, sent by OTLP over HTTP from a thread of the SDK. Only with the extra `tracing`.

One server span a request; a reply has the children queue, prefill and decode. Attributes are those of the semantic
conventions for HTTP and for generative AI, and never hold content: https://opentelemetry.io/docs/specs/semconv/gen-ai
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from turnwise_server import __version__
from turnwise_server.api.telemetry.endpoints import PROBES
from turnwise_server.api.telemetry.request_facts import ReplyFacts, RequestFacts
from turnwise_server.api.telemetry.trace_context import TraceContext
from turnwise_server.api.telemetry.tracing import RequestTrace, UnwrittenTracer

NAME = "turnwise"
UNTRACED_PATHS = PROBES | {"/metrics"}
"""They would drown the rest."""

CLOSE_TIMEOUT_S = 3.0
"""How long the last spans may take at the end of the server."""

Value = str | int | float | bool | Sequence[str]


class OtlpTracer:
    """Implements `Tracer`. What the OTEL_* variables say holds: sampler, resource, headers, timeouts, batches."""

    def __init__(self, endpoint: str | None = None) -> None:
        """Send to the collector at the base address `endpoint`, by default where the environment says."""
        traces = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": NAME, "service.version": __version__, **given})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint=traces)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer(NAME, __version__)
        self._unwritten = UnwrittenTracer()

    def begin(self, caller: TraceContext | None, *, method: str, path: str) -> RequestTrace:
        """Begin the span of a request; see `Tracer`."""
        if path in UNTRACED_PATHS:
            return self._unwritten.begin(caller, method=method, path=path)
        return self._trace(caller, method)

    async def close(self) -> None:
        """Send what is left, for a few seconds at most; the thread that sends does not keep the process alive."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_TIMEOUT_S)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it so

    def _trace(self, caller: TraceContext | None, method: str) -> _SpanTrace:
        parent = set_span_in_context(NonRecordingSpan(_remote(caller)), Context()) if caller else Context()
        attributes = {"http.request.method": method}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        return _SpanTrace(self._tracer, span)


class _SpanTrace:
    """Implements `RequestTrace` with a span of the SDK, and its children once they are known."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._clock_offset_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def context(self) -> TraceContext:
        """The ids of the span."""
        context = self._span.get_span_context()
        return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags))

    def end(self, request: RequestFacts) -> None:
        """Write the span and its children."""
        if not self._span.is_recording():
            return
        now = time.perf_counter()
        self._span.update_name(f"{request.method} {request.endpoint}")
        self._span.set_attributes(dict(_attributes(request)))
        if request.status >= 500 or (request.error and request.status < 400):
            self._span.set_status(StatusCode.ERROR)
        if request.reply is not None:
            inside = set_span_in_context(self._span, Context())
            for name, begin, end in _phases(request.reply, now):
                child = self._tracer.start_span(name, inside, start_time=self._wall_ns(begin))
                child.end(self._wall_ns(end))
        self._span.end(self._wall_ns(now))

    def _wall_ns(self, moment: float) -> int:
        """Turn seconds of `time.perf_counter()` into nanoseconds since 1970."""
        return int(moment * 1e9) + self._clock_offset_ns


def _remote(caller: TraceContext) -> SpanContext:
    return SpanContext(
        int(caller.trace_id, 16),
        int(caller.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
    )


def _phases(reply: ReplyFacts, now: float) -> Iterator[tuple[str, float, float]]:
    """Yield what the reply went through: names and moments. A phase that was cut ends `now`."""
    started, first, last = reply.started, reply.first_token, reply.last_token
    yield "queue", reply.queued, now if started is None else started
    if started is not None:
        yield "prefill", started, now if first is None else first
    if first is not None and last is not None:
        yield "decode", first, last


def _attributes(request: RequestFacts) -> Iterator[tuple[str, Value]]:
    yield "http.route", request.endpoint
    yield "http.response.status_code", request.status
    yield "turnwise.request_id", request.request_id
    if request.error or request.status >= 500:
        yield "error.type", request.error or str(request.status)
    if request.reply is not None:
        yield "gen_ai.request.stream", request.stream
        yield from _reply_attributes(request.reply, request.endpoint)


def _reply_attributes(reply: ReplyFacts, endpoint: str) -> Iterator[tuple[str, Value]]:
    yield "gen_ai.operation.name", "text_completion" if endpoint == "/v1/completions" else "chat"
    yield "gen_ai.provider.name", NAME
    yield "gen_ai.request.model", reply.model
    yield "gen_ai.request.max_tokens", reply.max_tokens
    yield "gen_ai.request.temperature", reply.temperature
    yield "gen_ai.request.top_p", reply.top_p
    yield "gen_ai.request.choice.count", reply.n
    yield "gen_ai.response.id", reply.id
    yield "gen_ai.response.model", reply.model
    yield "gen_ai.response.finish_reasons", reply.finish_reasons
    yield "gen_ai.usage.input_tokens", reply.prompt_tokens
    yield "gen_ai.usage.cache_read.input_tokens", reply.cached_tokens
    yield "gen_ai.usage.output_tokens", reply.completion_tokens
