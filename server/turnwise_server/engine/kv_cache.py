"""Keys and values of some sequences, in every layer. It knows nothing of which sequences they are.

A block is tight: a decode step reads all of `[rows, heads, capacity, dim]` as it lies in memory. The batched products
of a CPU copy what they are given in any other way first, and take three times as long (docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

LENGTH_BUCKET = 64
"""Capacities are multiples of this, since each new length costs a kernel set-up."""


def round_up(tokens: int) -> int:
    """Return `tokens` rounded up to a whole bucket."""
    return -(-tokens // LENGTH_BUCKET) * LENGTH_BUCKET


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer stores for a token."""

    heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class KVFormat:
    """What a model stores for a token, and where."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Return the memory one token takes over all layers."""
        return sum(s.heads * (s.key_dim + s.value_dim) for s in self.layers) * self.dtype.itemsize


class KVBlock:
    """Memory for `rows` sequences of up to `capacity` tokens.

    `keys[layer]` is `[rows, heads, capacity, key_dim]`, `values[layer]` `[rows, heads, capacity, value_dim]`. Memory is
    zeroed when it is taken: a masked position may hold an old token, never a NaN that a zero weight could not silence.
    """

    def __init__(self, form: KVFormat, rows: int, capacity: int) -> None:
        self._form = form
        self.rows = rows
        self.capacity = capacity
        self.keys = [self._zeros(shape.heads, shape.key_dim) for shape in form.layers]
        self.values = [self._zeros(shape.heads, shape.value_dim) for shape in form.layers]

    @property
    def size(self) -> int:
        """Return how many tokens it has memory for."""
        return self.rows * self.capacity

    def copy_row(self, row: int, source: KVBlock, source_row: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of another block's row, or of another row of this one."""
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for to, start in zip(mine, theirs, strict=True):
                to[row, :, :tokens].copy_(start[source_row, :, :tokens])

    def resize(self, rows: int, capacity: int, lengths: Sequence[int]) -> None:
        """Change the shape and keep the first `lengths[i]` tokens of row `i`. Needs memory for one layer more."""
        self.rows, self.capacity = rows, capacity
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = self._zeros(old.shape[1], old.shape[3])
                for row, tokens in enumerate(lengths):
                    new[row, :, :tokens].copy_(old[row, :, :tokens])
                tensors[layer] = new

    def _zeros(self, heads: int, dim: int) -> torch.Tensor:
        form = self._form
        return torch.zeros(self.rows, heads, self.capacity, dim, dtype=form.dtype, device=form.device)
