"""The detector that runs here: windows of texts, scored by the models of a classifier's directory in one thread."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier_files import ClassifierFiles, open_classifier
from turnwise_server.moderation.detector import Sample, Scores
from turnwise_server.moderation.encoder import Encoder
from turnwise_server.moderation.linear_model import LinearModel
from turnwise_server.moderation.worker import BatchWorker

PACKAGED: Final = "builtin:safety"
PACKAGED_DIRECTORY: Final = Path(__file__).parents[1] / "safety"
_MAX_BATCH: Final = 4
"""Windows that are scored at once. On one core more are no quicker, and those behind them would wait longer."""


class Scorer:
    """The models of a directory, and what turns their logits into scores."""

    def __init__(self, files: ClassifierFiles) -> None:
        """Load the models.

        Raises:
            DetectorFileError: they cannot be loaded.
        """
        weights = files.facts.ensemble
        self._encoder = Encoder.load(files) if weights.encoder else None
        self._linear = (
            LinearModel.load(files.path / "linear", labels=files.labels) if weights.linear else None
        )
        self._weights = weights
        self._is_multi_label = files.is_multi_label
        self._temperature = np.array([files.facts.temperature.get(label, 1.0) for label in files.labels])

    def score(self, windows: Sequence[str]) -> list[NDArray[np.float64]]:
        """Return the scores of windows, each of shape (labels,): the highest of what the encoder reads apart."""
        places = list(range(len(windows)))
        logits = np.zeros((len(windows), len(self._temperature)))
        if self._encoder:
            pieces, places = self._encoder.pieces(windows)
            logits = self._weights.encoder * self._encoder.logits(pieces).astype(np.float64)
        if self._linear:
            logits = logits + self._weights.linear * self._linear.logits(windows)[places]
        scores = _probabilities(logits / self._temperature, is_multi_label=self._is_multi_label)
        if not np.isfinite(scores).all():
            raise ArithmeticError("the classifier gave scores that are no numbers")
        return list(_highest(scores, places, len(windows)))

    def score_alone(self, windows: Sequence[str]) -> list[NDArray[np.float64]]:
        """Score as `score` does, in the calling thread without others that help it."""
        if self._encoder:
            compute_alone()
        return self.score(windows)


class Classifier:
    """A `Detector` by a classifier's directory."""

    def __init__(self, files: ClassifierFiles, *, id: str) -> None:  # noqa: A002
        """Load the models, and score a long text once, so that what is wrong with them shows now.

        Raises:
            DetectorFileError: they cannot be loaded, or fail.
        """
        self.id = id
        self.sha256 = files.sha256
        self.labels = frozenset(files.labels)
        self.thresholds: Scores = files.facts.thresholds
        self._names = files.labels
        self._window_chars, self._overlap_chars = files.facts.window_chars, files.facts.overlap_chars
        scorer = Scorer(files)
        try:
            with ThreadPoolExecutor(1) as first:
                first.submit(scorer.score_alone, ["a " * files.max_length]).result()
        except Exception as error:
            raise DetectorFileError(
                f"{files.path} fails to score a text: {error}. "
                "Check config.json, and max_length in safety.json, against the weights."
            ) from error
        self._worker = BatchWorker(scorer.score_alone, name=f"detector-{id}", max_batch=_MAX_BATCH)

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return the scores of samples, for each label the highest of a sample's windows; see `Detector`."""
        pieces = [
            (place, window)
            for place, sample in enumerate(samples)
            for window in windows(sample.text, self._window_chars, self._overlap_chars)
        ]
        found = await self._worker.submit([window for _, window in pieces])
        highest = _highest(np.array(found), [place for place, _ in pieces], len(samples))
        return [dict(zip(self._names, row.tolist(), strict=True)) for row in highest]

    async def close(self) -> None:
        """End its thread; see `Detector`."""
        await self._worker.close()


def load_classifier(rule: DetectorRule) -> Classifier:
    """Load the detector of a policy whose kind is `hf_sequence_classification`. This takes most of a second.

    Raises:
        DetectorFileError: its directory cannot be used; the message names the file and the remedy.
    """
    path = PACKAGED_DIRECTORY if rule.path == PACKAGED else Path(rule.path or "").expanduser()
    files = open_classifier(path, sha256=rule.sha256)
    if unknown := sorted(set(rule.labels or {}) - set(files.labels)):
        raise DetectorFileError(
            f"{path} has no label {unknown[0]!r}, which the policy's detector {rule.id!r} gives a category. "
            f"Its labels are {', '.join(map(repr, files.labels))}."
        )
    return Classifier(files, id=rule.id)


def windows(text: str, chars: int, overlap: int) -> list[str]:
    """Return the windows of a text in order, neighbours sharing `overlap` characters; at least one."""
    return [text[start : start + chars] for start in range(0, max(1, len(text) - overlap), chars - overlap)]


def compute_alone() -> None:
    """Have torch take no further threads for what the calling thread computes from now on.

    `torch.set_num_threads` sets the number for its caller and for all threads to come. For these another thread
    puts back what it was, so that other detectors keep their cores.
    """
    import torch

    if (before := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(1) as other:
            other.submit(torch.set_num_threads, before).result()


def _probabilities(logits: NDArray[np.float64], *, is_multi_label: bool) -> NDArray[np.float64]:
    """Return the probabilities of rows of logits, shape (rows, labels)."""
    if is_multi_label:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _highest(rows: NDArray[np.float64], places: Sequence[int], count: int) -> NDArray[np.float64]:
    """Return for each of `count` places the greatest values of its rows, shape (count, labels)."""
    highest = np.zeros((count, rows.shape[1]))
    np.maximum.at(highest, places, rows)
    return highest
