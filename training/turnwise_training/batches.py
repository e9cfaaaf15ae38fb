"""Lays encoded rows out as tensors: one running stream for pretraining, packed conversations for fine-tuning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnwise_training.chat import Encoded
from turnwise_training.lm_loss import IGNORED

OPEN_ROWS = 64
"""How many unfilled rows packing looks back on; enough to fill rows to about 98%."""


@dataclass(frozen=True)
class Rows:
    """Rows to train on, each tensor [N, T]; `positions` is None where a row is one running stretch of text."""

    ids: Tensor
    labels: Tensor
    positions: Tensor | None
    weights: Tensor | None = None
    """What each label counts in the loss; None where all count 1."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor | slice) -> "Rows":
        """Return the rows at `index`."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        tensors = (self.ids, self.labels, self.positions, self.weights)
        ids, labels, positions, weights = (None if t is None else change(t) for t in tensors)
        assert ids is not None
        assert labels is not None
        return Rows(ids, labels, positions, weights)

    @property
    def trained_tokens(self) -> int:
        """The number of tokens the loss is taken on."""
        return int((self.labels != IGNORED).sum())

    @property
    def trained_weight(self) -> float:
        """The weights of those tokens, added up."""
        return self.trained_tokens if self.weights is None else float(self.weights.double().sum())


def stream_rows(ids: Sequence[int], *, seq_len: int) -> Rows:
    """Cut a stream of n * `seq_len` + 1 tokens into rows; every token but the first is predicted once."""
    stream = torch.tensor(ids, dtype=torch.int64)
    count = (len(stream) - 1) // seq_len
    inputs = stream[: count * seq_len].view(count, seq_len)
    return Rows(inputs, stream[1 : count * seq_len + 1].view(count, seq_len), None)


def pack(encoded: Sequence[Encoded], *, seq_len: int, pad_id: int) -> Rows:
    """Pack whole conversations of at most `seq_len` tokens into rows, first fit, in order.

    Each conversation's positions begin at 0 and its last token predicts nothing, so conversations that share a
    row stay strangers. Padding is one more such stretch without labels.
    """
    rows: list[list[Encoded]] = []
    space: list[int] = []
    for item in encoded:
        if len(item.ids) > seq_len:
            raise ValueError(f"a conversation of {len(item.ids)} tokens does not fit a row of {seq_len}")
        first_open = max(0, len(rows) - OPEN_ROWS)
        fitting = (row for row in range(first_open, len(rows)) if space[row] >= len(item.ids))
        row = next(fitting, None)
        if row is None:
            rows.append([item])
            space.append(seq_len - len(item.ids))
        else:
            rows[row].append(item)
            space[row] -= len(item.ids)
    laid = [_lay(row, seq_len, pad_id) for row in rows]
    columns = (torch.tensor(column).view(len(laid), seq_len) for column in zip(*laid, strict=True))
    ids, labels, positions, weights = columns if laid else [torch.zeros(0, seq_len, dtype=torch.int64)] * 4
    is_weighted = any(item.weight != 1 for item in encoded)
    return Rows(ids, labels, positions, weights if is_weighted else None)


def _lay(
    row: list[Encoded], seq_len: int, pad_id: int
) -> tuple[list[int], list[int], list[int], list[float]]:
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    weights: list[float] = []
    for item in row:
        ids += item.ids
        trained = [*item.trained[1:], False]
        following = [*item.ids[1:], IGNORED]
        labels += [token if on else IGNORED for token, on in zip(following, trained, strict=True)]
        weights += [item.weight if on else 0.0 for on in trained]
        positions += range(len(item.ids))
    padding = seq_len - len(ids)
    return (
        ids + [pad_id] * padding,
        labels + [IGNORED] * padding,
        positions + list(range(padding)),
        weights + [0.0] * padding,
    )
