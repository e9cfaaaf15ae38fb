"""Directories of classifiers: what is refused before any weights are loaded, and what the error says."""

import json
from pathlib import Path

import pytest

from support.classifiers import change_json, write_classifier
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier import PACKAGED_DIRECTORY
from turnwise_server.moderation.classifier_files import open_classifier


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """The shipped directory, of links that a test can replace."""
    (tmp_path / "linear").mkdir()
    for file in PACKAGED_DIRECTORY.rglob("*.*"):
        (tmp_path / file.relative_to(PACKAGED_DIRECTORY)).symlink_to(file.resolve())
    return tmp_path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "foreign", ["safe", "unsafe"])


def replace(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content)


def test_the_shipped_directory_is_whole() -> None:
    files = open_classifier(PACKAGED_DIRECTORY)
    facts = json.loads((PACKAGED_DIRECTORY / "safety.json").read_text())
    assert files.labels == tuple(facts["labels"])
    assert files.sha256 == facts["sha256"]["model.safetensors"]
    assert (files.max_length, files.is_multi_label) == (256, True)
    assert open_classifier(PACKAGED_DIRECTORY, sha256=files.sha256) == files


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "linear/linear.json", "linear/weights.safetensors"]
)
def test_a_file_that_was_changed_is_named(shipped: Path, name: str) -> None:
    replace(shipped / name, "{}")
    with pytest.raises(DetectorFileError, match=rf"{name} is not the file that safety.json was written for"):
        open_classifier(shipped)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "linear/weights.safetensors"])
def test_a_file_that_is_missing_is_named(shipped: Path, name: str) -> None:
    (shipped / name).unlink()
    with pytest.raises(DetectorFileError, match=rf"{name} is missing.*Copy the directory again"):
        open_classifier(shipped)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"format": "turnwise-safety-2"}, "format: .*turnwise-safety-1.*upgrade Turnwise"),
        ({"format": None}, "an ensemble needs a format"),
        ({"labels": None}, "the format needs labels"),
        ({"thresholds": {}}, "each label needs a temperature and a threshold"),
        ({"temperature": {"hate": 0}}, "temperature.hate: .*greater than 0"),
        ({"sha256": {}}, "sha256 must name config.json"),
        ({"sha256": {"../secret": "0"}}, "sha256 must name config.json"),
        ({"window_chars": 100}, "overlap_chars must be less"),
    ],
)
def test_what_safety_json_lacks_is_told(shipped: Path, values: dict[str, object], reason: str) -> None:
    change_json(shipped / "safety.json", **values)
    with pytest.raises(DetectorFileError, match=rf"safety.json: .*{reason}"):
        open_classifier(shipped)


def test_labels_in_another_order_than_the_models_are_refused(shipped: Path) -> None:
    facts = json.loads((shipped / "safety.json").read_text())
    change_json(shipped / "safety.json", labels=facts["labels"][::-1])
    with pytest.raises(DetectorFileError, match="differ in labels"):
        open_classifier(shipped)


def test_the_linear_model_alone_is_a_classifier(shipped: Path) -> None:
    facts = json.loads((shipped / "safety.json").read_text())
    digests = {name: digest for name, digest in facts["sha256"].items() if name.startswith("linear/")}
    change_json(shipped / "safety.json", ensemble={"encoder": 0, "linear": 1}, sha256=digests)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (shipped / name).unlink()
    assert open_classifier(shipped).sha256 == digests["linear/weights.safetensors"]


def test_weights_that_the_policy_does_not_mean_are_refused(foreign: Path) -> None:
    with pytest.raises(DetectorFileError, match=r"model.safetensors has the SHA-256 .*the policy says 0000"):
        open_classifier(foreign, sha256="0" * 64)


def test_weights_in_a_pickle_are_refused(foreign: Path) -> None:
    (foreign / "model.safetensors").rename(foreign / "pytorch_model.bin")
    with pytest.raises(DetectorFileError, match=r"pytorch_model.bin is a pickle.*save_pretrained"):
        open_classifier(foreign)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorFileError, match=r"There is no directory .*nowhere"):
        open_classifier(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map.*never run"),
        ({"problem_type": "regression"}, "describes a regression"),
        ({"id2label": None}, "'id2label' must name every label"),
        ({"id2label": {"1": "safe", "2": "unsafe"}}, "'id2label' must name every label"),
        ({"id2label": {"0": "safe", "1": "safe"}}, "'id2label' must name every label once"),
    ],
)
def test_configurations_that_cannot_be_served_are_refused(
    foreign: Path, values: dict[str, object], reason: str
) -> None:
    change_json(foreign / "config.json", **values)
    with pytest.raises(DetectorFileError, match=rf"config.json.*{reason}"):
        open_classifier(foreign)


def test_an_adapter_is_refused(foreign: Path) -> None:
    (foreign / "adapter_config.json").write_text("{}")
    with pytest.raises(DetectorFileError, match=r"holds an adapter\. Merge it"):
        open_classifier(foreign)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_json_that_is_none_is_refused(foreign: Path, content: str) -> None:
    (foreign / "safety.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DetectorFileError, match=r"safety\.json .*Copy it again"):
        open_classifier(foreign)


@pytest.mark.parametrize(
    ("labels", "problem_type", "expected"),
    [
        (["safe", "unsafe"], None, False),
        (["safe", "unsafe"], "single_label_classification", False),
        (["safe", "unsafe"], "multi_label_classification", True),
        (["unsafe"], None, True),
    ],
)
def test_labels_share_a_probability_unless_the_configuration_says_otherwise(
    tmp_path: Path, labels: list[str], problem_type: str | None, expected: bool
) -> None:
    files = open_classifier(write_classifier(tmp_path, labels, problem_type=problem_type))
    assert files.is_multi_label is expected
    assert files.labels == tuple(labels)
    assert files.max_length == 32
