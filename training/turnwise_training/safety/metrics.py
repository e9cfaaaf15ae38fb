"""Figures of a detector with their uncertainty; pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """A share of `n` with its Wilson interval at 95%."""

    hits: int
    n: int

    @property
    def rate(self) -> float:
        """Return hits / n, or nan of nothing."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the lower and upper bound. Source: Wilson, JASA 22, 1927."""
        if not self.n:
            return (0.0, 1.0)
        z = 1.959964
        centre = (self.rate + z * z / (2 * self.n)) / (1 + z * z / self.n)
        spread = math.sqrt(self.rate * (1 - self.rate) / self.n + z * z / (4 * self.n**2))
        half = z * spread / (1 + z * z / self.n)
        return (max(0.0, centre - half), min(1.0, centre + half))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.1%} [{low:.1%}, {high:.1%}] of {self.n}"


def average_precision(
    scores: Sequence[float] | NDArray[np.float64], positive: Sequence[bool] | NDArray[np.bool_]
) -> float:
    """Return the area under the precision-recall curve by steps; equal scores are one step. nan without positives."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    values = np.asarray(scores, dtype=np.float64)[order]
    hits = np.cumsum(np.asarray(positive, dtype=np.int64)[order])
    if not len(hits) or hits[-1] == 0:
        return math.nan
    last = np.append(values[1:] != values[:-1], True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precision_interval(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], *, draws: int = 200
) -> tuple[float, float]:
    """Return the middle 95% of the average precision of `draws` samples with replacement, as large as the whole."""
    draw = np.random.default_rng(0)
    samples = (draw.integers(len(scores), size=len(scores)) for _ in range(draws))
    found = [average_precision(scores[places], positive[places]) for places in samples]
    low, high = np.nanquantile(found, (0.025, 0.975))
    return (float(low), float(high))


def calibration_error(
    probabilities: NDArray[np.float64], positive: NDArray[np.bool_], *, bins: int = 10
) -> float:
    """Return the expected calibration error over bins of equal width. Source: Guo et al., ICML 2017."""
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(probabilities[places == place].mean() - positive[places == place].mean())
        * (places == place).mean()
        for place in range(bins)
        if (places == place).any()
    ]
    return float(sum(gaps))
