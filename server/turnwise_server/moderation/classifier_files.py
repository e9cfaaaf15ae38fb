"""Verifies a classifier's directory and reads what it says of itself, before any weights are loaded.

It opens .json and .safetensors files of known names alone, so nothing in the directory can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from turnwise_server.errors import DetectorFileError

ENCODER_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
LINEAR_FILES: Final = ("linear/linear.json", "linear/weights.safetensors")
_MOST_TOKENS: Final = 512
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.joblib")


class Ensemble(BaseModel):
    """What each model's logits are multiplied by; 0: it is absent."""

    encoder: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    linear: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class SafetyFacts(BaseModel):
    """The keys of safety.json that scoring needs. Of a directory that is not ours, each may be missing."""

    model_config = ConfigDict(frozen=True)

    format: Literal["turnwise-safety-1"] | None = None
    labels: tuple[str, ...] = ()
    sha256: dict[str, str] = {}
    ensemble: Ensemble = Ensemble()
    temperature: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    max_length: int = Field(default=_MOST_TOKENS, ge=8)
    window_chars: int = Field(default=1200, ge=1)
    overlap_chars: int = Field(default=200, ge=0)

    @model_validator(mode="after")
    def _is_complete(self) -> SafetyFacts:
        if self.overlap_chars >= self.window_chars:
            raise ValueError("overlap_chars must be less than window_chars")
        if self.format is None and (self.ensemble.linear or not self.ensemble.encoder):
            raise ValueError("an ensemble needs a format")
        if self.format and (missing := sorted(set(SafetyFacts.model_fields) - self.model_fields_set)):
            raise ValueError(f"the format needs {', '.join(missing)}")
        if self.format and not set(self.labels) == set(self.temperature) == set(self.thresholds):
            raise ValueError("each label needs a temperature and a threshold")
        if self.format and set(self.sha256) != set(self.files):
            raise ValueError(f"sha256 must name {', '.join(self.files)}")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the classifier is made of."""
        encoder = ENCODER_FILES if self.ensemble.encoder else ()
        return encoder + (LINEAR_FILES if self.ensemble.linear else ())


@dataclass(frozen=True, slots=True)
class ClassifierFiles:
    """A verified directory, and how its logits become scores."""

    path: Path
    facts: SafetyFacts
    labels: tuple[str, ...]
    """The names of a row of logits."""
    is_multi_label: bool
    """Whether each label has a probability by itself (sigmoid), or all of them together (softmax)."""
    max_length: int
    """Tokens that the encoder reads at once."""
    sha256: str
    """The digest of the encoder's weights; of the linear model's where there is no encoder."""


def open_classifier(path: Path, *, sha256: str | None = None) -> ClassifierFiles:
    """Verify a directory: ours (docs/safety-detector.md), or a Hugging Face sequence classifier.

    Args:
        path: the directory.
        sha256: the digest that model.safetensors must have.

    Raises:
        DetectorFileError: something is missing, damaged, changed, or could run code.
    """
    facts = _read_facts(path / "safety.json")
    digests = {name: _digest(path, name) for name in facts.files}
    for name, digest in digests.items():
        if facts.sha256.get(name, digest) != digest:
            raise DetectorFileError(
                f"{path / name} is not the file that safety.json was written for. Copy the whole directory again."
            )
    weights = next(name for name in facts.files if name.endswith(".safetensors"))
    if sha256 not in (None, digests[weights]):
        raise DetectorFileError(
            f"{path / weights} has the SHA-256 {digests[weights]}, the policy says {sha256}. "
            "Restore the file, or write its digest into the policy."
        )
    if not facts.ensemble.encoder:
        return ClassifierFiles(path, facts, facts.labels, True, facts.max_length, digests[weights])
    config = _read_config(path)
    labels = _labels(path / "config.json", config)
    if facts.format and (labels != facts.labels or not _is_multi_label(config)):
        raise DetectorFileError(f"{path / 'config.json'} and safety.json differ in labels. Copy both again.")
    positions = config.get("max_position_embeddings")
    max_length = min(facts.max_length, positions) if isinstance(positions, int) else facts.max_length
    return ClassifierFiles(path, facts, labels, _is_multi_label(config), max_length, digests[weights])


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DetectorFileError: there is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DetectorFileError(
            f"{file} cannot be read as JSON ({type(error).__name__}). Copy it again."
        ) from error
    if not isinstance(content, dict):
        raise DetectorFileError(f"{file} holds no JSON object. Copy it again.")
    return content


def _read_facts(file: Path) -> SafetyFacts:
    if not file.parent.is_dir():
        raise DetectorFileError(
            f"There is no directory {file.parent}. Give the one that holds the classifier."
        )
    if not file.exists():
        return SafetyFacts()
    try:
        return SafetyFacts.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DetectorFileError(
            f"{file}: {where or 'contents'}: {first['msg']}. Copy the directory again, or upgrade Turnwise."
        ) from error


def _digest(path: Path, name: str) -> str:
    try:
        with (path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        pickles = [file.name for pattern in _PICKLES for file in sorted(path.glob(pattern))]
        if name == "model.safetensors" and pickles:
            raise DetectorFileError(
                f"{path / pickles[0]} is a pickle, which can run any code when it is read. Load the model where you "
                "trust it and save it again with save_pretrained(), which writes model.safetensors."
            ) from error
        raise DetectorFileError(
            f"{path / name} is missing or cannot be read. Copy the directory again."
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    config = read_json(file)
    if "auto_map" in config:
        raise DetectorFileError(
            f"{file} asks for code of the model's own (auto_map), which is never run. Choose another model."
        )
    if (path / "adapter_config.json").exists():
        raise DetectorFileError(
            f"{path} holds an adapter. Merge it into its model, and give the whole model."
        )
    return config


def _labels(file: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels in the order of the logits."""
    names = config.get("id2label")
    try:
        labels = tuple(names[str(place)] for place in range(len(names)))  # type: ignore[index,arg-type]
    except (KeyError, TypeError):
        labels = ()
    if not labels or len(set(labels)) < len(labels) or not all(isinstance(each, str) for each in labels):
        raise DetectorFileError(f"{file}: 'id2label' must name every label once, by the numbers from 0.")
    if config.get("problem_type") == "regression":
        raise DetectorFileError(f"{file} describes a regression. Choose a model that classifies.")
    return labels


def _is_multi_label(config: Mapping[str, Any]) -> bool:
    """Return what the configuration says, else as `transformers` decides: one label alone has its own probability."""
    default = "multi_label_classification" if len(config["id2label"]) == 1 else "single_label_classification"
    return bool((config.get("problem_type") or default) == "multi_label_classification")
