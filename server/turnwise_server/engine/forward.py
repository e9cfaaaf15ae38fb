"""What the engine core asks of a model: prefill some chunks, decode one token for each active row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from turnwise_server.engine.kv_cache import KVBlock, KVFormat


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Tokens of one sequence whose keys and values go to row 0 of `block` from position `start` on."""

    block: KVBlock
    start: int
    token_ids: Sequence[int]


class ModelForward(Protocol):
    """A causal language model that reads and writes `KVBlock`s."""

    kv_format: KVFormat
    vocab_size: int

    def prefill(self, chunks: Sequence[PrefillChunk]) -> torch.Tensor:
        """Run several chunks and return the logits after the last token of each, `[chunks, V]`."""
        ...

    def decode(self, batch: KVBlock, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the batch's rows 0..B-1 and return the logits `[B, V]`.

        Row `i` already holds `positions[i]` tokens; the given one becomes the next.
        """
        ...
