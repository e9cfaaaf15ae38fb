"""What /metrics counts and measures, for one application. Every name stands in docs/operations.md; a test compares.

No label takes what a client makes up: models are served names, endpoints are route patterns, reasons are closed sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, Metric, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from turnwise_server import __version__
from turnwise_server.api.errors import ERROR_CODES
from turnwise_server.api.supervision import Interruption
from turnwise_server.api.telemetry.endpoints import PROBES
from turnwise_server.api.telemetry.engine_metrics import engine_families
from turnwise_server.api.telemetry.interval_histogram import SHORT_BOUNDS_S, IntervalHistogram
from turnwise_server.api.telemetry.request_facts import ReplyFacts, RequestFacts
from turnwise_server.api.telemetry.safety_metrics import SafetyMetrics
from turnwise_server.engine.base import EngineStats

PREFIX = "turnwise"
OTHER = "other"

_NOT_REJECTED = frozenset({499, 500})
"""Statuses that nobody chose: the client left, or the server is at fault."""

_WAIT_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REPLY_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600)
_TOKEN_COUNTS = tuple(2**power for power in range(18))


class Metrics:
    """Counters and histograms of one application. Its methods belong to the event loop and take microseconds."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "requests",
            "Requests answered, whatever their route.",
            ("endpoint", "method", "model", "status", "stream", "finish_reason"),
        )
        self._rejected = self._counter(
            "rejected", "Requests refused before the engine had them, by the code of the error.", ("reason",)
        )
        self._cancelled = self._counter("cancelled", "Replies stopped before their end.", ("reason",))
        self.safety = SafetyMetrics(PREFIX, self._registry)
        """What the refusal layer does."""
        self._time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the request's arrival to its first token.", _WAIT_BOUNDS_S
        )
        self._e2e_latency = self._histogram(
            "e2e_request_latency_seconds",
            "From the request's arrival to the end of its reply.",
            _REPLY_BOUNDS_S,
        )
        self._queue_time = self._histogram(
            "request_queue_time_seconds", "From entering the queue to leaving it.", _WAIT_BOUNDS_S
        )
        self._prefill_time = self._histogram(
            "request_prefill_time_seconds", "From leaving the queue to the first token.", _WAIT_BOUNDS_S
        )
        self._decode_time = self._histogram(
            "request_decode_time_seconds", "From the first token to the last.", _REPLY_BOUNDS_S
        )
        self._prompt_tokens = self._histogram("request_prompt_tokens", "Tokens of a prompt.", _TOKEN_COUNTS)
        self._generation_tokens = self._histogram(
            "request_generation_tokens", "Tokens of a reply, all its choices together.", _TOKEN_COUNTS
        )
        self._inter_token_latency = IntervalHistogram(
            f"{PREFIX}_inter_token_latency_seconds",
            "Between two successive tokens of one choice.",
            bounds_s=SHORT_BOUNDS_S,
        )
        self._registry.register(self._inter_token_latency)
        ProcessCollector(registry=self._registry)
        build = Info(f"{PREFIX}_build", "The version of the server.", registry=self._registry)
        build.info({"version": __version__})
        for reason in Interruption:
            self._cancelled.labels(reason.value)

    def request_ended(self, request: RequestFacts) -> None:
        """Count an answered request."""
        self._requests.labels(
            request.endpoint,
            request.method,
            request.model,
            str(request.status),
            str(request.stream).lower(),
            request.finish_reason,
        ).inc()
        if _is_rejection(request):
            self._rejected.labels(request.error if request.error in ERROR_CODES else OTHER).inc()

    def reply_ended(self, reply: ReplyFacts, *, arrived: float, ended: float) -> None:
        """Measure a reply as far as it came. `arrived` and `ended` are seconds of `time.perf_counter()`."""
        for timeline in reply.timelines:
            self._inter_token_latency.observe(reply.model, timeline.tokens)
        started, first, last = reply.started, reply.first_token, reply.last_token
        if started is not None:
            self._queue_time.labels(reply.model).observe(started - reply.queued)
            if first is not None:
                self._prefill_time.labels(reply.model).observe(first - started)
        if first is not None:
            self._time_to_first_token.labels(reply.model).observe(first - arrived)
        if reply.is_complete and first is not None and last is not None:
            self._decode_time.labels(reply.model).observe(last - first)
            self._e2e_latency.labels(reply.model).observe(ended - arrived)
            self._prompt_tokens.labels(reply.model).observe(reply.prompt_tokens)
            self._generation_tokens.labels(reply.model).observe(reply.completion_tokens)

    def reply_cancelled(self, reason: Interruption) -> None:
        """Count a reply that was stopped before its end."""
        self._cancelled.labels(reason.value).inc()

    def exposition(self, engines: Mapping[str, EngineStats]) -> bytes:
        """Return everything in the Prometheus text format 0.0.4, with the figures of `engines` by served name."""
        return generate_latest(_Everything(self._registry, engines))

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(f"{PREFIX}_{name}", documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, bounds: Sequence[float]) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}", documentation, ("model",), registry=self._registry, buckets=bounds
        )


def _is_rejection(request: RequestFacts) -> bool:
    is_refused = request.status >= 400 and request.status not in _NOT_REJECTED
    return is_refused and request.reply is None and request.endpoint not in PROBES


@dataclass(frozen=True, slots=True)
class _Everything(Collector):
    registry: CollectorRegistry
    engines: Mapping[str, EngineStats]

    def collect(self) -> Iterator[Metric]:
        yield from engine_families(PREFIX, self.engines)
        for family in self.registry.collect():
            # When a series was made is no figure that anybody asked for.
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
