"""A Hugging Face sequence classifier that gives logits to texts. It runs no code that comes with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier_files import ClassifierFiles

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Encoding, Tokenizer


class Network(Protocol):
    """What computes the logits."""

    def logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits of texts of token ids, shape (texts, labels)."""
        ...


class Encoder:
    """A network with its tokenizer."""

    def __init__(self, network: Network, tokenizer: Tokenizer, *, most_tokens: int) -> None:
        """Take the most tokens that the network may read at once; a text of more is read in pieces."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(most_tokens, stride=most_tokens // 2)
        self._network = network
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, files: ClassifierFiles) -> Encoder:
        """Read configuration, weights and tokenizer.

        Raises:
            DetectorFileError: they are damaged, do not belong together, or are of an unknown architecture.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(files.path / "tokenizer.json"))
        except Exception as error:
            raise DetectorFileError(
                f"{files.path / 'tokenizer.json'} cannot be read: {error}. Copy it again."
            ) from error
        return cls(_load_network(files.path), tokenizer, most_tokens=files.max_length)

    def pieces(self, texts: Sequence[str]) -> tuple[list[Encoding], list[int]]:
        """Return what the encoder reads of texts, one to three pieces of each, and the place of each piece's text.

        Neighbouring pieces share half of their tokens, so that each is read among others. Were all but the first cut
        off, some hundred characters of dense signs would hide what stands behind them.
        """
        found = [self._tokenizer.encode(text.encode("utf-8", "replace").decode()) for text in texts]
        pieces = [
            (piece, place)
            for place, first in enumerate(found)
            for piece in _first_middle_last([first, *first.overflowing])
        ]
        return [piece for piece, _ in pieces], [place for _, place in pieces]

    def logits(self, pieces: Sequence[Encoding]) -> NDArray[np.float32]:
        """Return a row of logits for each piece, shape (pieces, labels)."""
        return self._network.logits([piece.ids for piece in pieces])


def _first_middle_last(pieces: list[Encoding]) -> list[Encoding]:
    """Return at most three pieces: dense texts, such as Chinese ones, would take the time of ten otherwise."""
    return pieces if len(pieces) <= 3 else [pieces[0], pieces[len(pieces) // 2], pieces[-1]]


def _load_network(path: Path) -> Network:
    from turnwise_server.moderation.packed_bert import packed_bert

    if network := packed_bert(path):
        return network
    from turnwise_server.moderation.padded_network import PaddedNetwork

    return PaddedNetwork.load(path)
