"""What /metrics counts and measures of the refusal layer. Labels are the policy's words, never a client's."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from turnwise_server.api.telemetry.interval_histogram import SHORT_BOUNDS_S
from turnwise_server.moderation.audit.record import AuditRecord
from turnwise_server.moderation.panel import Asked

NO_CATEGORY = "none"


class SafetyMetrics:
    """Counters and a histogram of one application. Its methods belong to the event loop and take microseconds."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        """Register them, their names beginning with `prefix`."""

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", documentation, labels, registry=registry)

        self._refusals = counter(
            "refusals", "Conversations the model was not let answer.", "stage", "category"
        )
        self._decisions = counter(
            "safety_decisions",
            "Texts judged, by what was done; the actions `allow` and `unavailable` have the category `none`.",
            "stage",
            "category",
            "action",
        )
        self._errors = counter(
            "safety_errors", "Detectors that gave no scores in time.", "detector", "reason"
        )
        self._overrides = counter(
            "safety_overrides", "Texts let pass for a key that may override the policy.", "category"
        )
        self._shadow_disagreements = counter(
            "safety_shadow_disagreement",
            "Texts that a detector in shadow would have judged otherwise.",
            "detector",
        )
        self._feedback = counter("refusal_feedback", "Votes on replies that were refused.", "thumb")
        self._latency = Histogram(
            f"{prefix}_safety_latency_seconds",
            "How long a detector took to judge a text.",
            ("detector",),
            registry=registry,
            buckets=SHORT_BOUNDS_S,
        )

    def refused(self, *, stage: str, category: str) -> None:
        """Count a conversation that was refused; both words come from the refusal layer's closed sets."""
        self._refusals.labels(stage, category).inc()

    def decided(self, record: AuditRecord) -> None:
        """Count a decision of the refusal layer."""
        category = record.category or NO_CATEGORY
        self._decisions.labels(record.stage, category, record.action).inc()
        if record.override is not None:
            self._overrides.labels(category).inc()

    def detectors_asked(self, asked: Iterable[Asked]) -> None:
        """Measure what detectors took, and count those that failed."""
        for each in asked:
            self._latency.labels(each.detector).observe(each.ms / 1000)
            if each.error is not None:
                self._errors.labels(each.detector, each.error).inc()

    def shadow_disagreed(self, detector: str) -> None:
        """Count a text that a detector which decides nothing would have judged otherwise."""
        self._shadow_disagreements.labels(detector).inc()

    def refusal_voted(self, thumb: str) -> None:
        """Count a vote, `up` or `down`, on a reply that was refused."""
        self._feedback.labels(thumb).inc()
