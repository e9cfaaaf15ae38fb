"""A Prometheus histogram of the time between tokens, fed with a whole reply at once: 10 ns a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SHORT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
"""Of what takes milliseconds: a token, a detector's answer."""


class IntervalHistogram(Collector):
    """Counts the intervals between successive moments, by model. `observe` belongs to one thread."""

    def __init__(self, name: str, documentation: str, *, bounds_s: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(bounds_s)
        self._labels = [*map(floatToGoString, bounds_s), "+Inf"]
        self._models: dict[str, tuple[np.ndarray[tuple[int], np.dtype[np.int64]], float]] = {}

    def observe(self, model: str, moments: Sequence[float]) -> None:
        """Add the intervals between successive `moments`, in seconds; fewer than two have none."""
        if len(moments) < 2:
            return
        gaps = np.diff(np.array(moments))
        counts = np.bincount(np.searchsorted(self._bounds, gaps), minlength=len(self._labels))
        before, seconds = self._models.get(model, (0, 0.0))
        self._models[model] = (before + counts, seconds + float(gaps.sum()))

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram with one child a model."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=("model",))
        for model, (counts, seconds) in tuple(self._models.items()):
            totals = map(float, counts.cumsum())
            family.add_metric([model], list(zip(self._labels, totals, strict=True)), seconds)
        yield family
