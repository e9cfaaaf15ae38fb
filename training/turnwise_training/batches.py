"""Lays encoded rows out as tensors: one running stream for pretraining, packed conversations for fine-tuning."""

from collections.abc import Sequence
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

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor | slice) -> "Rows":
        """Return the rows at `index`."""
        positions = None if self.positions is None else self.positions[index]
        return Rows(self.ids[index], self.labels[index], positions)

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on a device."""
        positions = None if self.positions is None else self.positions.to(device)
        return Rows(self.ids.to(device), self.labels.to(device), positions)

    @property
    def trained_tokens(self) -> int:
        """The number of tokens the loss is taken on."""
        return int((self.labels != IGNORED).sum())


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
    ids, labels, positions = (torch.tensor([part[i] for part in laid], dtype=torch.int64) for i in range(3))
    return Rows(
        ids.view(len(laid), seq_len), labels.view(len(laid), seq_len), positions.view(len(laid), seq_len)
    )


def _lay(row: list[Encoded], seq_len: int, pad_id: int) -> tuple[list[int], list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    for item in row:
        ids += item.ids
        trained = zip(item.ids[1:], item.trained[1:], strict=True)
        labels += [token if is_trained else IGNORED for token, is_trained in trained] + [IGNORED]
        positions += range(len(item.ids))
    padding = seq_len - len(ids)
    return ids + [pad_id] * padding, labels + [IGNORED] * padding, positions + list(range(padding))
