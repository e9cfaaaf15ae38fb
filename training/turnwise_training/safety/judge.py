"""Figures of a detector by source, and the tables of them: shares with intervals, base rates beside PR-AUC."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise_training.safety.detector import Calibration
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.metrics import (
    Share,
    average_precision,
    average_precision_interval,
    calibration_error,
)
from turnwise_training.safety.rows import SafetyRow


def judge(
    rows: Sequence[SafetyRow], logits: NDArray[np.float32], calibration: Calibration
) -> dict[str, object]:
    """Return flagged shares by source, PR-AUC with base rates for requests and remarks, and calibration error."""
    scores = calibration.scores(logits)
    flagged = calibration.flagged(scores)
    places: dict[tuple[bool, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.unsafe, row.kind, row.source].append(place)
    sources = [
        {"source": source, "kind": kind, "unsafe": unsafe, **_share(flagged[found])}
        for (unsafe, kind, source), found in sorted(places.items())
    ]
    unsafe = np.array([row.unsafe for row in rows])
    content = np.array([row.kind == "content" for row in rows])
    highest = scores.max(axis=1)
    return {
        "sources": sources,
        "requests": ranking(highest[~content], unsafe[~content]),
        "content": ranking(highest[content], unsafe[content]),
        "labels": _labels(rows, scores, calibration),
    }


def _share(flagged: NDArray[np.bool_]) -> dict[str, object]:
    share = Share(int(flagged.sum()), len(flagged))
    return {"n": share.n, "flagged": share.hits, "rate": short(share.rate), "wilson95": _interval(share)}


def _interval(share: Share) -> list[float]:
    return [short(bound) for bound in share.interval]


def ranking(scores: NDArray[np.float64], unsafe: NDArray[np.bool_]) -> dict[str, object] | None:
    """Return PR-AUC with its interval beside its base rate, and with 30% unsafe; None where a class is missing."""
    if not unsafe.any() or unsafe.all():
        return None
    return {
        "n": len(unsafe),
        "base_rate": short(unsafe.mean()),
        "pr_auc": short(average_precision(scores, unsafe)),
        "bootstrap95": [short(bound) for bound in average_precision_interval(scores, unsafe)],
        "pr_auc_at_base_rate_0.3": short(_at_base_rate(scores, unsafe, 0.3)),
        "calibration_error": short(calibration_error(scores, unsafe)),
    }


def _at_base_rate(scores: NDArray[np.float64], unsafe: NDArray[np.bool_], base_rate: float) -> float:
    """Return the mean PR-AUC of 20 draws in which the larger class is thinned to the base rate."""
    draw = np.random.default_rng(0)
    bad, good = np.flatnonzero(unsafe), np.flatnonzero(~unsafe)
    keep_good = min(len(good), round(len(bad) * (1 - base_rate) / base_rate))
    keep_bad = min(len(bad), max(1, round(keep_good * base_rate / (1 - base_rate))))
    found = []
    for _ in range(20):
        kept = np.concatenate(
            [draw.choice(bad, keep_bad, replace=False), draw.choice(good, keep_good, replace=False)]
        )
        found.append(average_precision(scores[kept], unsafe[kept]))
    return float(np.mean(found))


def _labels(
    rows: Sequence[SafetyRow], scores: NDArray[np.float64], calibration: Calibration
) -> dict[str, dict[str, object]]:
    """Return for each label with known positives how many of them are flagged under any label."""
    flagged = calibration.flagged(scores)
    positive = {
        label: [place for place, row in enumerate(rows) if row.labels and label in row.labels]
        for label in LABELS
    }
    return {label: _share(flagged[places]) for label, places in positive.items() if places}


def table(figures: dict[str, object]) -> str:
    """Return the figures of `judge` as a Markdown table and two lines."""
    lines = ["| source | what | n | flagged | 95% |", "|---|---|---|---|---|"]
    sources = figures["sources"]
    assert isinstance(sources, list)
    for each in sources:
        low, high = each["wilson95"]
        what = f"{'harmful' if each['unsafe'] else 'harmless'}, {each['kind'].replace('_', ' ')}"
        lines.append(
            f"| {each['source']} | {what} | {each['n']} | {each['rate']:.1%} | {low:.1%}-{high:.1%} |"
        )
    for name in ("requests", "content"):
        ranking = figures[name]
        if isinstance(ranking, dict):
            lines.append(
                f"\nPR-AUC on {name}: {ranking['pr_auc']:.3f} at a base rate of {ranking['base_rate']:.3f} "
                f"(n = {ranking['n']}), {ranking['pr_auc_at_base_rate_0.3']:.3f} thinned to 0.3."
            )
    return "\n".join(lines)


def short(value: float) -> float:
    """Return a figure as it is written down."""
    return round(float(value), 4)
