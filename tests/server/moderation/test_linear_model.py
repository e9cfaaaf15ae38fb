"""The linear model: which n-grams count, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.linear_model import LinearModel, buckets_of

LABELS = ("rude", "lewd")
FACTS: dict[str, object] = {
    "format": "hashed-ngrams-1",
    "buckets": 64,
    "labels": [*LABELS],
    "word_grams": [1, 2],
    "character_grams": [3, 4, 5],
}


def write(folder: Path, facts: dict[str, object], **weights: NDArray[np.float16]) -> Path:
    """Write a model whose every bucket counts alike, but for the weights given."""
    whole = {"idf": np.ones(64), "weight": np.tile([1.0, -1.0], (64, 1)), "bias": np.array([0.5, 0.25])}
    tensors = {name: values.astype(np.float16) for name, values in (whole | weights).items()}
    save_file(tensors, folder / "weights.safetensors")
    (folder / "linear.json").write_text(json.dumps(facts))
    return folder


def test_a_text_of_n_buckets_weighs_the_root_of_n(tmp_path: Path) -> None:
    model = LinearModel.load(write(tmp_path, FACTS), labels=LABELS)
    root = len(buckets_of("hello there", 64)) ** 0.5
    assert model.logits(["hello there", ""]) == pytest.approx(
        np.array([[0.5 + root, 0.25 - root], [0.5, 0.25]]), abs=1e-5
    )


def test_buckets_do_not_depend_on_case_or_width() -> None:
    plain, fullwidth = (
        buckets_of("Hello there", 4096),
        buckets_of("\uff28\uff25\uff2c\uff2c\uff2f there", 4096),
    )
    assert plain.tolist() == fullwidth.tolist()
    assert buckets_of(" \n", 4096).tolist() == []


def test_a_half_of_a_pair_counts_as_a_question_mark() -> None:
    assert set(buckets_of("\ud83d", 4096)) == set(buckets_of("?", 4096))


@pytest.mark.parametrize(
    "change", [{"format": "hashed-ngrams-2"}, {"word_grams": [1]}, {"labels": ["lewd", "rude"]}]
)
def test_another_format_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(DetectorFileError, match=r"linear.json has another format or other labels"):
        LinearModel.load(write(tmp_path, FACTS | change), labels=LABELS)


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorFileError, match=r"does not have the shapes"):
        LinearModel.load(write(tmp_path, FACTS, bias=np.ones(3, np.float16)), labels=LABELS)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    (write(tmp_path, FACTS) / "weights.safetensors").write_bytes(b"\x00")
    with pytest.raises(DetectorFileError, match=r"weights.safetensors is damaged"):
        LinearModel.load(tmp_path, labels=LABELS)
