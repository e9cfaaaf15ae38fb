"""The key-value cache: one contiguous row of tokens a sequence, in every layer. It knows nothing of who owns a row.

Keys are stored as `[rows, heads, dim, tokens]` where the forward asks for it: a decode step multiplies one query with
them, and reading them along the token axis is three times faster on a CPU than the usual order (docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

LENGTH_BUCKET = 64
"""Attention lengths and row capacities are multiples of this: each new length costs a kernel set-up."""


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
class RowMove:
    """Take the first `tokens` tokens of row `source` to row `target`."""

    source: int
    target: int
    tokens: int


class KVCache:
    """Rows of keys and values for every layer, grown and shrunk as a whole.

    `keys[layer]` is `[rows, heads, key_dim, capacity]` if `transposed_keys`, else `[rows, heads, capacity, key_dim]`;
    `values[layer]` is `[rows, heads, capacity, value_dim]`. Memory is zeroed once: a masked position may hold an old
    token, never a NaN that a zero weight could not silence.
    """

    def __init__(
        self, layers: Sequence[LayerShape], *, dtype: torch.dtype, device: torch.device, transposed_keys: bool
    ) -> None:
        self.layers = tuple(layers)
        self.rows = 0
        self.capacity = 0
        self._dtype = dtype
        self._device = device
        self._key_axis = 3 if transposed_keys else 2
        self.keys = [self._empty_keys(layer, 0, 0) for layer in self.layers]
        self.values = [self._empty_values(layer, 0, 0) for layer in self.layers]

    @property
    def bytes_per_token(self) -> int:
        """Return the memory one token takes over all layers."""
        return sum(s.heads * (s.key_dim + s.value_dim) for s in self.layers) * self._dtype.itemsize

    def resize(self, rows: int, capacity: int, moves: Iterable[RowMove]) -> None:
        """Give the cache `rows` rows of `capacity` tokens; what no move names is forgotten."""
        moves = tuple(moves)
        for index, shape in enumerate(self.layers):
            keys, values = self._empty_keys(shape, rows, capacity), self._empty_values(shape, rows, capacity)
            for move in moves:
                self._copy(self.keys[index][move.source], keys[move.target], self._key_axis - 1, move.tokens)
                self._copy(self.values[index][move.source], values[move.target], 1, move.tokens)
            self.keys[index], self.values[index] = keys, values
        self.rows, self.capacity = rows, capacity

    def copy_prefix(self, move: RowMove) -> None:
        """Copy the beginning of one row over another."""
        for keys, values in zip(self.keys, self.values, strict=True):
            self._copy(keys[move.source], keys[move.target], self._key_axis - 1, move.tokens)
            self._copy(values[move.source], values[move.target], 1, move.tokens)

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange the first `tokens` tokens of two rows."""
        for keys, values in zip(self.keys, self.values, strict=True):
            for tensor, axis in ((keys, self._key_axis), (values, 2)):
                both = tensor.narrow(axis, 0, tokens)
                kept = both[first].clone()
                both[first] = both[second]
                both[second] = kept

    def _empty_keys(self, shape: LayerShape, rows: int, capacity: int) -> torch.Tensor:
        tail = (shape.key_dim, capacity) if self._key_axis == 3 else (capacity, shape.key_dim)
        return torch.zeros(rows, shape.heads, *tail, dtype=self._dtype, device=self._device)

    def _empty_values(self, shape: LayerShape, rows: int, capacity: int) -> torch.Tensor:
        return torch.zeros(
            rows, shape.heads, capacity, shape.value_dim, dtype=self._dtype, device=self._device
        )

    @staticmethod
    def _copy(source: torch.Tensor, target: torch.Tensor, axis: int, tokens: int) -> None:
        target.narrow(axis, 0, tokens).copy_(source.narrow(axis, 0, tokens))
