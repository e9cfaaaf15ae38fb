"""The engines' own figures as Prometheus metrics, made from a snapshot at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from turnwise_server.engine.base import EngineStats

Figure = Callable[[EngineStats], float]


def _step_age_s(stats: EngineStats) -> float:
    return stats.seconds_since_step if stats.running or stats.waiting else 0.0


_FIGURES: Mapping[str, tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, Figure]] = {
    "engine_up": (GaugeMetricFamily, "1 while the engine lives, else 0.", lambda stats: stats.is_alive),
    "requests_running": (GaugeMetricFamily, "Choices being generated.", lambda stats: stats.running),
    "requests_waiting": (GaugeMetricFamily, "Choices in the queue.", lambda stats: stats.waiting),
    "kv_cache_usage_ratio": (
        GaugeMetricFamily,
        "Share of the key-value memory that running choices hold.",
        lambda stats: stats.kv_cache_usage,
    ),
    "last_step_age_seconds": (
        GaugeMetricFamily,
        "Since the engine last finished a step; 0 while it has nothing to do.",
        _step_age_s,
    ),
    "engine_restarts": (
        CounterMetricFamily,
        "Times the engine process was started again.",
        lambda stats: stats.restarts,
    ),
    "prompt_tokens": (
        CounterMetricFamily,
        "Prompt tokens read, cached ones included.",
        lambda stats: stats.prompt_tokens,
    ),
    "generation_tokens": (CounterMetricFamily, "Tokens generated.", lambda stats: stats.generated_tokens),
    "prefix_cache_queries": (
        CounterMetricFamily,
        "Prompt tokens looked up in the prefix cache: all of them.",
        lambda stats: stats.prompt_tokens,
    ),
    "prefix_cache_hits": (
        CounterMetricFamily,
        "Prompt tokens found in the prefix cache.",
        lambda stats: stats.cached_prompt_tokens,
    ),
}


def engine_families(prefix: str, engines: Mapping[str, EngineStats]) -> Iterator[Metric]:
    """Yield one family a figure, with one sample for each of `engines`, which go by the served name."""
    for name, (kind, documentation, figure) in _FIGURES.items():
        family = kind(f"{prefix}_{name}", documentation, labels=("model",))
        for model, stats in engines.items():
            family.add_metric([model], figure(stats))
        yield family
