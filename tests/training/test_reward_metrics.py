"""Accuracy, calibration and agreement, against counts made by hand."""

import math

import pytest
import torch

from turnwise_training.ranked import Order, RankedPrompt
from turnwise_training.reward_metrics import calibration, labeler_agreement, reward_report


def prompt(*orders: Order, source: str = "s", policies: tuple[str | None, ...] = (None,) * 3) -> RankedPrompt:
    return RankedPrompt(source, [[1], [2], [3]], list(policies), list(orders))


def best_first(labeler: str | None, *answers: int) -> Order:
    return Order(list(answers), list(range(len(answers))), 0.0, labeler)


def test_accuracy_counts_every_pair_by_source_policies_and_labeler() -> None:
    prompts = [
        prompt(best_first("ann", 0, 1, 2), policies=("new", "old", None)),
        prompt(best_first("bob", 2, 0), source="t"),
    ]
    report = reward_report(prompts, [[2.0, 3.0, 0.0], [1.0, 0.0, 1.0]])
    assert report["prompts"] == 2
    assert report["accuracy"] == {"pairs": 4, "share": 2.5 / 4}
    assert report["by_source"] == {"s": {"pairs": 3, "share": 2 / 3}, "t": {"pairs": 1, "share": 0.5}}
    assert report["by_policies"] == {"new / old": {"pairs": 1, "share": 0.0}}
    assert report["by_labeler"] == {"ann": {"pairs": 3, "share": 2 / 3}, "bob": {"pairs": 1, "share": 0.5}}
    assert report["between_labelers"] == {"pairs": 0, "share": None}


def test_labelers_agree_where_they_order_the_same_two_answers_alike() -> None:
    overlapping = prompt(best_first("ann", 0, 1, 2), best_first("bob", 1, 0), best_first("cid", 1, 2))
    # 0-1: ann against bob; 1-2: ann as cid; ann's 0-2 stands alone.
    assert sorted(labeler_agreement([overlapping])) == [0.0, 1.0]
    assert labeler_agreement([prompt(best_first("ann", 0, 1), best_first("ann", 1, 0))]) == []
    assert labeler_agreement([prompt(best_first(None, 0, 1), best_first("ann", 1, 0))]) == []


def test_calibration_sets_the_predicted_share_of_each_bin_against_the_observed() -> None:
    def lead(probability: float) -> float:
        return math.log(probability / (1 - probability))

    # Four pairs predicted at 0.62, three of them right; one at 0.97, wrong; an even one counts half.
    table = calibration([lead(0.62)] * 3 + [-lead(0.62), -lead(0.97), 0.0])
    rows = table["calibration"]
    assert isinstance(rows, list)
    assert [row["pairs"] for row in rows] == [1, 0, 4, 0, 0, 0, 0, 0, 0, 1]
    assert rows[2] == {
        "from": pytest.approx(0.6),
        "to": pytest.approx(0.65),
        "pairs": 4,
        "predicted": pytest.approx(0.62),
        "observed": 0.75,
    }
    assert rows[9]["observed"] == 0.0
    assert rows[0]["observed"] == 0.5
    assert table["calibration_error"] == pytest.approx((4 * 0.13 + 0.97 + 0) / 6)


def test_scores_drawn_from_the_model_of_preferences_are_calibrated() -> None:
    generator = torch.Generator().manual_seed(0)
    lead = 2 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    flipped = torch.rand(len(lead), generator=generator) > lead.sigmoid()
    honest = torch.where(flipped, -lead, lead)
    assert _error(honest) < 0.015
    assert _error(3 * honest) > 0.08


def _error(leads: torch.Tensor) -> float:
    error = calibration(leads.tolist())["calibration_error"]
    assert isinstance(error, float)
    return error


def test_no_held_out_prompt_gives_no_figure() -> None:
    report = reward_report([], [])
    assert report["accuracy"] == {"pairs": 0, "share": None}
    assert report["calibration_error"] is None
