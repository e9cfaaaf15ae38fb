"""Chooses the temperature and the thresholds on development sources alone."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise_training.errors import DataError
from turnwise_training.safety.detector import Calibration
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.rows import SafetyRow


def calibrate(
    rows: Sequence[SafetyRow],
    logits: NDArray[np.float32],
    *,
    false_refusals: float,
    hard_safe_refusals: float,
) -> Calibration:
    """Return one temperature for every label and the least common threshold that keeps both rates.

    On every source of ordinary texts at most `false_refusals` are flagged, on every one of harmless texts that are
    alarming or that moderators looked at, at most `hard_safe_refusals`: the strictest source decides, because a rate
    over all hides the worst.
    """
    temperature = fit_temperature(rows, logits)
    calibrated = Calibration(dict.fromkeys(LABELS, temperature), {})
    highest = calibrated.scores(logits).max(axis=1)
    scores: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row, score in zip(rows, highest, strict=True):
        if not row.unsafe:
            scores[row.source, row.kind != "ordinary"].append(float(score))
    if not scores:
        raise DataError("'development' names no source with harmless texts, so no threshold can be chosen")
    limits = [
        np.quantile(found, 1 - (hard_safe_refusals if hard else false_refusals), method="higher")
        for (_, hard), found in scores.items()
    ]
    threshold = float(np.nextafter(max(limits), 1.0))
    return Calibration(calibrated.temperature, dict.fromkeys(LABELS, round(threshold + 5e-5, 4)))


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
