"""Scores, calibration, figures and files of the detector; every text here is harmless and invented."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from turnwise_training.errors import DataError, RunError
from turnwise_training.safety.calibrate import calibrate, fit_temperature
from turnwise_training.safety.config import LinearSettings
from turnwise_training.safety.detector import (
    Blend,
    Calibration,
    load_detector,
    whole_logits,
    windows,
    write_safety_json,
)
from turnwise_training.safety.judge import judge, table
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.likelihood import any_probability, safety_loss, targets
from turnwise_training.safety.linear import LinearModel, buckets_of, train_linear
from turnwise_training.safety.metrics import Share, average_precision, calibration_error
from turnwise_training.safety.rows import Kind, SafetyRow

EVEN = Calibration(dict.fromkeys(LABELS, 1.0), dict.fromkeys(LABELS, 0.5))


def row(
    text: str, label: str | None = None, *, source: str = "one", kind: Kind = "ordinary", unsafe: bool = False
) -> SafetyRow:
    """Return a row under a label, or under none."""
    known = None if unsafe and label is None else frozenset({label} if label else ())
    return SafetyRow(text, unsafe or label is not None, known, source, "MIT", kind)


class Lengths:
    """Gives every label the length of the text as its logit."""

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the lengths."""
        return np.array([[len(text)] * len(LABELS) for text in texts], dtype=np.float32)


def test_wilson_interval_of_a_half() -> None:
    low, high = Share(125, 250).interval
    assert (round(low, 3), round(high, 3)) == (0.438, 0.562)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_average_precision_of_perfect_worst_and_tied_scores() -> None:
    assert average_precision([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert average_precision([0.9, 0.1], [False, True]) == 0.5
    assert average_precision([0.5] * 10, [True] * 3 + [False] * 7) == pytest.approx(0.3)
    assert np.isnan(average_precision([0.5], [False]))


def test_calibration_error_is_the_gap_between_probability_and_share() -> None:
    found = calibration_error(np.full(10, 0.8), np.array([True] * 5 + [False] * 5))
    assert found == pytest.approx(0.3)


def test_a_known_row_counts_as_cross_entropy_and_an_unknown_one_as_a_noisy_or() -> None:
    logits = torch.randn(2, len(LABELS), generator=torch.Generator().manual_seed(1))
    known, unknown = targets([row("a", "hate"), row("b", unsafe=True)])
    chosen = LABELS.index("hate")
    expected = -torch.log(
        torch.sigmoid(torch.where(torch.arange(len(LABELS)) == chosen, logits[0], -logits[0]))
    ).sum()
    assert safety_loss(logits[:1], known[None]).item() == pytest.approx(expected.item(), rel=1e-5)
    some = 1 - (1 - torch.sigmoid(logits[1])).prod()
    assert safety_loss(logits[1:], unknown[None]).item() == pytest.approx(-some.log().item(), rel=1e-4)
    assert any_probability(logits[1:]).item() == pytest.approx(some.item(), rel=1e-5)


def test_the_loss_stays_finite_where_every_label_is_impossible() -> None:
    logits = torch.full((1, len(LABELS)), -60.0, requires_grad=True)
    loss = safety_loss(logits, targets([row("b", unsafe=True)]))
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_buckets_do_not_depend_on_case_or_width() -> None:
    assert (
        buckets_of("Hello there", 4096).tolist()
        == buckets_of("\uff28\uff25\uff2c\uff2c\uff2f there", 4096).tolist()
    )
    assert len(buckets_of("", 4096)) == 0


def test_the_linear_model_learns_a_word_and_survives_its_file(tmp_path: Path) -> None:
    rows = [row(f"purple number {i}", "illicit") for i in range(30)]
    rows += [row(f"yellow number {i}") for i in range(30)]
    model = train_linear(rows, LinearSettings(buckets=512, epochs=100), seed=1)
    model.save(tmp_path)
    texts = ["a purple thing", "a yellow thing", ""]
    logits = LinearModel.load(tmp_path).logits(texts)
    illicit = LABELS.index("illicit")
    assert logits[0, illicit] > logits[1, illicit] + 1
    assert np.allclose(logits, model.logits(texts), atol=0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linear.json", "weights.safetensors"]


def test_windows_cover_the_whole_text_and_overlap() -> None:
    text = "".join(chr(97 + i % 26) for i in range(2900))
    found = windows(text)
    assert [len(each) for each in found] == [1200, 1200, 900]
    assert found[0][-200:] == found[1][:200]
    assert windows("short") == ["short"]
    assert windows("") == [""]


def test_a_long_text_scores_as_its_worst_window() -> None:
    assert whole_logits(Lengths(), ["a" * 1500, "b"])[:, 0].tolist() == [1200, 1]


def test_a_blend_adds_weighted_logits() -> None:
    assert Blend([(Lengths(), 0.5), (Lengths(), 0.25)]).logits(["abcd"])[0, 0] == 3


@pytest.mark.parametrize(("kind", "most"), [("ordinary", 2), ("content", 5), ("hard_safe", 10)])
def test_the_strictest_source_decides_the_threshold_by_the_rate_of_its_kind(kind: Kind, most: int) -> None:
    rows = [
        *(row("x", source="mild") for _ in range(100)),
        *(row("x", source="strict", kind=kind) for _ in range(100)),
        *(row("x", "hate", source="bad", kind="request") for _ in range(20)),
    ]
    logits = np.full((220, len(LABELS)), -9.0, dtype=np.float32)
    logits[100:200, 0] = np.linspace(-3, 0, 100)
    logits[200:, 0] = 2
    found = calibrate(rows, logits, false_refusals=0.02, content_refusals=0.05, hard_safe_refusals=0.1)
    flagged = found.flagged(found.scores(logits))
    assert flagged[:100].sum() == 0
    assert most / 2 <= flagged[100:200].sum() <= most
    assert flagged[200:].all()


def test_a_label_that_harmless_texts_never_touch_gets_a_low_threshold() -> None:
    rows = [row("x") for _ in range(100)] + [row("x", "hate", kind="request") for _ in range(20)]
    logits = np.full((120, len(LABELS)), -9.0, dtype=np.float32)
    logits[:100, 0] = np.linspace(-3, 0, 100)
    logits[100:, 2] = 2
    found = calibrate(
        rows, logits, false_refusals=0.02, content_refusals=0.05, hard_safe_refusals=0.1
    ).thresholds
    assert found[LABELS[0]] > found[LABELS[2]] >= 0.2


def test_overconfident_logits_are_cooled() -> None:
    rows = [row("x", "hate") if i % 2 else row("x") for i in range(40)]
    logits = np.full((40, len(LABELS)), -20.0, dtype=np.float32)
    logits[:, 0] = [8.0 if (i % 2) != (i % 10 == 0) else -8.0 for i in range(40)]
    assert fit_temperature(rows, logits) > 1.5


def test_thresholds_need_harmless_and_harmful_texts() -> None:
    with pytest.raises(DataError, match="both harmless and harmful"):
        calibrate(
            [row("x")],
            np.zeros((1, 13), dtype=np.float32),
            false_refusals=0.01,
            content_refusals=0.05,
            hard_safe_refusals=0.1,
        )


def test_figures_hold_shares_by_source_and_no_text() -> None:
    rows = [row(f"words {i}", source="calm") for i in range(4)]
    rows += [row(f"words {i}", "hate", source="loud", kind="request") for i in range(2)]
    logits = np.array([[-5.0] * 13] * 4 + [[5.0] * 13] * 2, dtype=np.float32)
    figures = judge(rows, logits, EVEN)
    assert figures["sources"] == [
        {"source": "calm", "kind": "ordinary", "unsafe": False, "n": 4, "flagged": 0, "rate": 0.0,
         "wilson95": [0.0, 0.4899]},
        {"source": "loud", "kind": "request", "unsafe": True, "n": 2, "flagged": 2, "rate": 1.0,
         "wilson95": [0.3424, 1.0]},
    ]  # fmt: skip
    assert figures["content"] is None
    assert "base rate of 0.333" in table(figures)
    assert "words" not in json.dumps(figures)


def written(folder: Path) -> Path:
    """Write a detector of a linear model alone."""
    rows = [row("purple", "illicit"), row("yellow")]
    train_linear(rows, LinearSettings(buckets=64, epochs=1), seed=1).save(folder / "linear")
    write_safety_json(folder, ensemble={"encoder": 0.0, "linear": 1.0}, calibration=EVEN, facts={})
    return folder


def test_a_detector_is_read_from_json_and_safetensors_alone(tmp_path: Path) -> None:
    scores = load_detector(written(tmp_path)).scores(["purple", "yellow"])
    assert scores.shape == (2, 13)
    assert ((scores > 0) & (scores < 1)).all()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "linear/linear.json").write_text("{}")
    with pytest.raises(RunError, match=r"linear\.json is not the file"):
        load_detector(folder)


def test_a_folder_without_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no safety\.json"):
        load_detector(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "safety.json").write_text('{"format": "other"}')
    with pytest.raises(RunError, match="format 'turnwise-safety-1'"):
        load_detector(tmp_path)
