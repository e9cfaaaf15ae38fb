"""Chooses which documents a phase of pretraining reads and in what order, from the seed alone."""

import random
from collections.abc import Callable, Iterator

import torch

from turnwise_training.batches import Rows, stream_rows
from turnwise_training.chat import Encoder
from turnwise_training.config import Mix
from turnwise_training.data import Row
from turnwise_training.errors import DataError

ENCODED_AT_ONCE = 256

Reader = Callable[[str, int], list[Row]]
"""Return the training rows of a source in the order a seed gives."""


def mix_rows(mix: Mix, *, count: int, seq_len: int, read: Reader, encoder: Encoder, seed: int) -> Rows:
    """Return `count` rows of `seq_len` tokens from the sources of `mix`, whole documents shuffled together."""
    total = sum(mix.values())
    documents: list[list[int]] = []
    for name, share in mix.items():
        documents += _documents(
            read(name, seed), tokens=share / total * (count * seq_len + 1), encoder=encoder, name=name
        )
    rng = random.Random(seed)
    rng.shuffle(documents)
    stream = [token for document in documents for token in document][: count * seq_len + 1]
    rows = stream_rows(stream, seq_len=seq_len)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.take(order)


def _documents(rows: list[Row], *, tokens: float, encoder: Encoder, name: str) -> list[list[int]]:
    """Return documents of at least `tokens` tokens in all, each ended by the end-of-text token."""
    if not rows:
        raise DataError(f"source {name!r} has no training rows")
    documents: list[list[int]] = []
    taken = 0
    for document in _encode_repeatedly(rows, encoder):
        if taken >= tokens:
            break
        documents.append(document)
        taken += len(document)
    return documents


def _encode_repeatedly(rows: list[Row], encoder: Encoder) -> Iterator[list[int]]:
    """Yield encoded documents in order, beginning again when they end."""
    seen: list[list[int]] = []
    for part in _batched(rows, ENCODED_AT_ONCE):
        for encoded in encoder.encode(part):
            seen.append([*encoded.ids, encoder.end_of_text])
            yield seen[-1]
    while True:
        yield from seen


def _batched(rows: list[Row], size: int) -> Iterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
