"""The linear half of the shipped detector: hashed n-grams of words and characters, by docs/safety-detector.md."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier_files import read_json

_WORD_GRAMS: Final = (1, 2)
_CHARACTER_GRAMS: Final = (3, 4, 5)
_FORMAT: Final = {
    "format": "hashed-ngrams-1",
    "word_grams": [*_WORD_GRAMS],
    "character_grams": [*_CHARACTER_GRAMS],
}
_WORD: Final = re.compile(r"\w+|[^\w\s]")


class LinearModel:
    """One weight for each bucket of n-grams and label."""

    def __init__(
        self, idf: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Take idf (B), weight (B, L) and bias (L) of B buckets and L labels."""
        self._idf, self._weight, self._bias = idf, weight, bias

    @classmethod
    def load(cls, folder: Path, *, labels: Sequence[str]) -> LinearModel:
        """Read linear.json and weights.safetensors.

        Raises:
            DetectorFileError: they are damaged, of another format, or have other labels.
        """
        facts = read_json(folder / "linear.json")
        file = folder / "weights.safetensors"
        if {key: facts.get(key) for key in _FORMAT} != _FORMAT or facts.get("labels") != [*labels]:
            raise DetectorFileError(
                f"{folder / 'linear.json'} has another format or other labels. Copy it again, or upgrade Turnwise."
            )
        try:
            found = {name: values.astype(np.float32) for name, values in load_file(file).items()}
        except (OSError, SafetensorError) as error:
            raise DetectorFileError(f"{file} is damaged. Copy it again.") from error
        buckets = facts.get("buckets")
        shapes = {"idf": (buckets,), "weight": (buckets, len(labels)), "bias": (len(labels),)}
        if {name: values.shape for name, values in found.items()} != shapes:
            raise DetectorFileError(
                f"{file} does not have the shapes that linear.json gives. Copy both again."
            )
        return cls(**found)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row of logits for each text, shape (texts, L)."""
        rows = np.tile(self._bias, (len(texts), 1))
        for row, text in zip(rows, texts, strict=True):
            places = buckets_of(text, len(self._idf))
            if len(places):
                values = self._idf[places]
                row += values / np.linalg.norm(values) @ self._weight[places]
        return rows


def buckets_of(text: str, buckets: int) -> NDArray[np.int64]:
    """Return the sorted buckets of a text's n-grams, each once."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    grams = {f"w:{' '.join(words[at : at + n])}" for n in _WORD_GRAMS for at in range(len(words) - n + 1)}
    for edged in {f"_{word}_" for word in words}:
        grams.update(f"c:{edged[at : at + n]}" for n in _CHARACTER_GRAMS for at in range(len(edged) - n + 1))
    found = {zlib.crc32(gram.encode("utf-8", "replace")) % buckets for gram in grams}
    return np.array(sorted(found), dtype=np.int64)
