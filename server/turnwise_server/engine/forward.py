"""What the engine core asks of a model: prefill some chunks, decode one token for each active row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from turnwise_server.engine.kv_cache import KVCache, LayerShape


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Tokens of one sequence whose keys and values go to `row` from position `start` on."""

    row: int
    start: int
    token_ids: Sequence[int]


class ModelForward(Protocol):
    """A causal language model that reads and writes a `KVCache`."""

    layers: tuple[LayerShape, ...]
    transposed_keys: bool
    vocab_size: int
    dtype: torch.dtype
    device: torch.device

    def prefill(self, cache: KVCache, chunks: Sequence[PrefillChunk]) -> torch.Tensor:
        """Run several chunks and return the logits after the last token of each, `[chunks, V]`."""
        ...

    def decode(self, cache: KVCache, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the rows 0..B-1 and return the logits `[B, V]`.

        Row `i` already holds `positions[i]` tokens; the given one becomes the next.
        """
        ...
