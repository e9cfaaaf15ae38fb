"""The shipped directory: writes it, and reads it into scores by the contract of docs/safety-detector.md."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from turnwise_training.errors import DataError, RunError
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.linear import LinearModel

FORMAT: Final = "turnwise-safety-1"
WINDOW: Final = 1200
OVERLAP: Final = 200
"""Characters of a window of a long text, and how many of them two neighbours share."""
MAX_LENGTH: Final = 256
"""Tokens of a window that the encoder reads; the rest of a window this long is left to the linear model."""
ENCODER_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
LINEAR_FILES: Final = ("linear/linear.json", "linear/weights.safetensors")


class Scorer(Protocol):
    """Anything that gives 13 logits to a text."""

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, shape (B, 13)."""
        ...


@dataclass(frozen=True)
class Blend:
    """Adds the logits of several models, each times its weight."""

    parts: Sequence[tuple[Scorer, float]]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the weighted sum of the parts' logits, shape (B, 13)."""
        total = np.zeros((len(texts), len(LABELS)), dtype=np.float32)
        for scorer, weight in self.parts:
            total += np.float32(weight) * scorer.logits(texts)
        return total


@dataclass(frozen=True)
class Calibration:
    """What turns logits into scores, and scores into verdicts."""

    temperature: dict[str, float]
    thresholds: dict[str, float]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return probabilities, shape (B, 13)."""
        temperature = np.array([self.temperature[label] for label in LABELS])
        return np.asarray(1 / (1 + np.exp(np.clip(-logits.astype(np.float64) / temperature, -60, 60))))

    def flagged(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which texts reach the threshold of any label, shape (B,)."""
        limits = np.array([self.thresholds[label] for label in LABELS])
        return np.asarray((scores >= limits).any(axis=1))


def windows(text: str) -> list[str]:
    """Return the windows of a text: 1,200 characters each, 200 of them shared with the one before."""
    step = WINDOW - OVERLAP
    return [text[start : start + WINDOW] for start in range(0, max(1, len(text) - OVERLAP), step)]


def whole_logits(scorer: Scorer, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return for each text and label the greatest logit over the text's windows, shape (B, 13)."""
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in windows(text)]
    greatest = np.full((len(texts), len(LABELS)), -np.inf, dtype=np.float32)
    found = scorer.logits([piece for _, piece in pieces])
    np.maximum.at(greatest, [place for place, _ in pieces], found)
    return greatest


@dataclass(frozen=True)
class Detector:
    """A scorer with its calibration."""

    scorer: Scorer
    calibration: Calibration

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the calibrated score of each label for each whole text, shape (B, 13)."""
        return self.calibration.scores(whole_logits(self.scorer, texts))


def load_detector(folder: Path) -> Detector:
    """Read a directory after comparing its files with their SHA-256.

    Raises RunError for a missing safety.json, another format, or a file that is not the one that was measured.
    """
    try:
        facts = json.loads((folder / "safety.json").read_text())
    except FileNotFoundError:
        raise RunError(f"{folder} holds no safety.json; train one with `turnwise-train safety`") from None
    if facts.get("format") != FORMAT or facts.get("labels") != list(LABELS):
        raise RunError(f"{folder}: safety.json must say format {FORMAT!r} and the thirteen labels in order")
    for name, digest in facts["sha256"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise RunError(f"{folder / name} is not the file safety.json names; copy the directory again")
    parts: list[tuple[Scorer, float]] = []
    if weight := facts["ensemble"]["encoder"]:
        from turnwise_training.safety.encoder import EncoderModel

        parts.append((EncoderModel.load(folder, max_length=facts["max_length"]), weight))
    if weight := facts["ensemble"]["linear"]:
        parts.append((LinearModel.load(folder / "linear"), weight))
    return Detector(Blend(parts), Calibration(facts["temperature"], facts["thresholds"]))


def write_safety_json(
    folder: Path, *, ensemble: dict[str, float], calibration: Calibration, facts: dict[str, object]
) -> None:
    """Write safety.json, last of all, with the digests of the files the detector is made of."""
    names = [
        *(ENCODER_FILES if ensemble["encoder"] else ()),
        *(LINEAR_FILES if ensemble["linear"] else ()),
    ]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder / missing[0]} is missing: write the models before safety.json")
    content = {
        "format": FORMAT,
        "labels": list(LABELS),
        "max_length": MAX_LENGTH,
        "window_chars": WINDOW,
        "overlap_chars": OVERLAP,
        "ensemble": ensemble,
        "temperature": calibration.temperature,
        "thresholds": calibration.thresholds,
        "sha256": {name: sha256(folder / name) for name in names},
        **facts,
    }
    (folder / "safety.json").write_text(json.dumps(content, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
