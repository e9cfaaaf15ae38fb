"""How well scores agree with rankings: pair accuracy, calibration, agreement with and between labelers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import torch

from turnwise_training.ranked import RankedPrompt

BINS = 10
Share = dict[str, float | None]
"""`pairs`, how many there are, and `share`, how many of them are right; None where there are none."""
K = TypeVar("K")


@dataclass(frozen=True)
class JudgedPair:
    """Two answers that a labeler ordered, and the lead of the better one's score over the worse one's."""

    source: str
    policies: tuple[str | None, str | None]
    labeler: str | None
    lead: float

    @property
    def right(self) -> float:
        """1 where the scores order the answers as the labeler did, 1/2 where they are equal, else 0."""
        return 0.5 if self.lead == 0 else float(self.lead > 0)


def judged_pairs(prompts: Sequence[RankedPrompt], scores: Sequence[Sequence[float]]) -> list[JudgedPair]:
    """Return every pair of every ranking; `scores` holds those of each prompt's answers."""
    return [
        JudgedPair(
            prompt.source,
            (prompt.policies[better], prompt.policies[worse]),
            order.labeler,
            given[better] - given[worse],
        )
        for prompt, given in zip(prompts, scores, strict=True)
        for order in prompt.orders
        for better, worse in order.pairs()
    ]


def reward_report(prompts: Sequence[RankedPrompt], scores: Sequence[Sequence[float]]) -> dict[str, object]:
    """Return accuracy (overall, by source and by pair of policies), calibration and agreement as JSON values."""
    pairs = judged_pairs(prompts, scores)
    versus = [(pair, " / ".join(sorted(map(str, pair.policies)))) for pair in pairs if all(pair.policies)]
    return {
        "prompts": len(prompts),
        "accuracy": _share(pair.right for pair in pairs),
        "by_source": _shares((pair.source, pair.right) for pair in pairs),
        "by_policies": _shares((name, pair.right) for pair, name in versus),
        "by_labeler": _shares((pair.labeler, pair.right) for pair in pairs if pair.labeler is not None),
        "between_labelers": _share(labeler_agreement(prompts)),
        **calibration([pair.lead for pair in pairs]),
    }


def calibration(leads: Sequence[float]) -> dict[str, object]:
    """Return the table of predicted against observed shares, and the expected calibration error.

    A pair's predicted share is sigmoid(|lead|), the Bradley-Terry probability of the answer that the scores prefer:
    bins halve [0.5, 1] into tenths. Observed is the share of pairs whose labeler preferred that answer too. The error
    is the mean distance of the two, weighed by pairs (Naeini et al., AAAI 2015).
    """
    lead = torch.tensor(leads, dtype=torch.float64)
    predicted = lead.abs().sigmoid()
    right = (lead.sign() + 1) / 2
    bins = ((predicted - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    table = []
    error = 0.0
    for number in range(BINS):
        inside = bins == number
        count = int(inside.sum())
        row: dict[str, float | None] = {
            "from": 0.5 + 0.5 * number / BINS,
            "to": 0.5 + 0.5 * (number + 1) / BINS,
            "pairs": count,
            "predicted": float(predicted[inside].mean()) if count else None,
            "observed": float(right[inside].mean()) if count else None,
        }
        table.append(row)
        if count:
            error += count / len(leads) * abs(float((predicted[inside] - right[inside]).mean()))
    return {"calibration": table, "calibration_error": error if leads else None}


def labeler_agreement(prompts: Sequence[RankedPrompt]) -> list[float]:
    """Return 1 or 0 for every two labelers who both ordered the same two answers, alike or not."""
    verdicts: list[float] = []
    for prompt in prompts:
        views: defaultdict[tuple[int, int], list[tuple[str, bool]]] = defaultdict(list)
        for order in prompt.orders:
            if order.labeler is not None:
                for better, worse in order.pairs():
                    view = (order.labeler, better < worse)
                    views[min(better, worse), max(better, worse)].append(view)
        for both in views.values():
            verdicts += [float(a[1] == b[1]) for a, b in combinations(both, 2) if a[0] != b[0]]
    return verdicts


def _share(right: Iterable[float]) -> Share:
    values = list(right)
    return {"pairs": len(values), "share": sum(values) / len(values) if values else None}


def _shares(named: Iterable[tuple[K, float]]) -> dict[K, Share]:
    groups: defaultdict[K, list[float]] = defaultdict(list)
    for name, right in named:
        groups[name].append(right)
    return {name: _share(groups[name]) for name in sorted(groups, key=str)}
