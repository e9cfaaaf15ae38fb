"""One trace context for every request; who wants spans of them too asks for the extra `tracing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from turnwise_server.api.telemetry.request_facts import RequestFacts
from turnwise_server.api.telemetry.trace_context import TraceContext, new_span
from turnwise_server.errors import ConfigurationError

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


class RequestTrace(Protocol):
    """The span of one request."""

    @property
    def context(self) -> TraceContext:
        """Its ids."""
        ...

    def end(self, request: RequestFacts) -> None:
        """Write the span of a request that has been answered now."""
        ...


class Tracer(Protocol):
    """Begins a span for every request. Nothing it does waits for anybody."""

    def begin(self, caller: TraceContext | None, *, method: str, path: str) -> RequestTrace:
        """Begin the span of a request, in the trace of its caller if that has one."""
        ...

    async def close(self) -> None:
        """Send what is left, but do not wait long for it."""
        ...


@dataclass(frozen=True, slots=True)
class UnwrittenTrace:
    """Ids for headers and the log, and no span."""

    context: TraceContext

    def end(self, request: RequestFacts) -> None:
        """Write nothing."""


class UnwrittenTracer:
    """Passes trace ids on and records nothing."""

    def begin(self, caller: TraceContext | None, *, method: str, path: str) -> UnwrittenTrace:
        """Return ids for a request."""
        del method, path
        return UnwrittenTrace(new_span(caller))

    async def close(self) -> None:
        """Do nothing."""


def make_tracer(otlp_endpoint: str | None, environment: Mapping[str, str]) -> Tracer:
    """Return a tracer that sends spans to `otlp_endpoint`, or where OTEL_* variables say; else one that sends none.

    Raises:
        ConfigurationError: spans are asked for, but the extra is not installed, or cannot send them that way.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return UnwrittenTracer()
    if otlp_endpoint is None and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return UnwrittenTracer()
    asked_by = "--otlp-endpoint" if otlp_endpoint else _first_set(_ENDPOINT_VARIABLES, environment)
    if asked_by is None:
        return UnwrittenTracer()
    protocol = _first_set(_PROTOCOL_VARIABLES, environment)
    if protocol and environment[protocol] != _PROTOCOL:
        raise ConfigurationError(
            f"{protocol} is {environment[protocol]!r}, but traces go by {_PROTOCOL!r} only"
        )
    try:
        from turnwise_server.api.telemetry.otlp import OtlpTracer
    except ImportError as error:
        raise ConfigurationError(
            f'{asked_by} asks for traces, which need an extra: pip install "turnwise[tracing]"'
        ) from error
    return OtlpTracer(otlp_endpoint)


def _first_set(names: tuple[str, ...], environment: Mapping[str, str]) -> str | None:
    return next((name for name in names if environment.get(name)), None)
