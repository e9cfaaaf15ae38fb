"""Chooses the temperature and the thresholds on development sources alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from turnwise_training.errors import DataError
from turnwise_training.safety.detector import Calibration
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.rows import Kind, SafetyRow

FLOOR: Final = 0.2
"""No threshold is lower: what little harmless text of a rare kind scores says nothing about the next one."""
SHARES: Final = 40
"""Steps in which the labels' common share of the allowed rates is searched."""


@dataclass(frozen=True)
class Allowance:
    """Scores of the harmless texts of one source, shape (n, 13), and the share of them that may be flagged."""

    scores: NDArray[np.float64]
    rate: float


def calibrate(
    rows: Sequence[SafetyRow],
    logits: NDArray[np.float32],
    *,
    false_refusals: float,
    content_refusals: float,
    hard_safe_refusals: float,
) -> Calibration:
    """Return one temperature for every label, and thresholds that keep both rates on every source.

    On every source of ordinary texts at most `false_refusals` are flagged, on every one of harmless remarks that
    moderators looked at, `content_refusals`, and of alarming ones `hard_safe_refusals`: the strictest source decides,
    because a rate over all hides the worst. Each label may spend the same share of these rates, the largest at which
    all labels together keep them; so a label that harmless texts rarely touch gets a low threshold.
    """
    temperature = dict.fromkeys(LABELS, fit_temperature(rows, logits))
    scores = Calibration(temperature, {}).scores(logits)
    rates = {"ordinary": false_refusals, "content": content_refusals, "hard_safe": hard_safe_refusals}
    places: dict[tuple[str, Kind], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if not row.unsafe:
            places[row.source, row.kind].append(place)
    allowances = [Allowance(scores[found], rates[kind]) for (_, kind), found in places.items()]
    thresholds = _thresholds(allowances)
    return Calibration(temperature, dict(zip(LABELS, thresholds.tolist(), strict=True)))


def _thresholds(allowances: Sequence[Allowance]) -> NDArray[np.float64]:
    """Return the lowest thresholds, shape (13,), that equal shares allow; a share of nothing always does."""
    for step in range(SHARES, -1, -1):
        limits = [
            np.quantile(each.scores, 1 - each.rate * step / SHARES, axis=0, method="higher")
            for each in allowances
        ]
        thresholds = np.ceil(np.maximum(np.max(limits, axis=0), FLOOR) * 1e4 + 0.01) / 1e4
        if all((each.scores >= thresholds).any(axis=1).mean() <= each.rate for each in allowances):
            break
    return np.asarray(thresholds)


def fit_temperature(rows: Sequence[SafetyRow], logits: NDArray[np.float32]) -> float:
    """Return the temperature that makes the noisy or of the labels likeliest, both classes weighing the same.

    A grid of 80 temperatures from 0.3 to 6 is searched. Source: Guo et al., ICML 2017, for one temperature.
    """
    unsafe = np.array([row.unsafe for row in rows])
    if unsafe.all() or not unsafe.any():
        raise DataError("'development' needs both harmless and harmful texts to fit the temperature")

    def cost(temperature: float) -> float:
        none = -np.logaddexp(0, logits.astype(np.float64) / temperature).sum(axis=1)
        some = np.log(np.maximum(-np.expm1(none), 1e-12))
        return float(-some[unsafe].mean() - none[~unsafe].mean())

    return round(float(min(np.geomspace(0.3, 6.0, 80), key=cost)), 3)
