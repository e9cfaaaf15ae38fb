"""A fused forward pass for models shaped like Llama and Qwen2: few, large operations and no module overhead.

One matrix product makes queries, keys and values, another gate and up. Attention is two batched products, in which the
queries that share a key head are folded into one (grouped-query attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from turnwise_server.engine.forward import PrefillChunk
from turnwise_server.engine.int8 import embed, linear
from turnwise_server.engine.kv_cache import KVBlock, KVFormat, LayerShape
from turnwise_server.engine.llama_weights import LlamaWeights


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a prefill chunk lies in the packed tokens, and what it may attend to."""

    chunk: PrefillChunk
    begin: int
    end: int
    mask: torch.Tensor
    """`[T, length]`, 0 or -inf."""


class LlamaForward:
    """Runs a Llama or Qwen2 module's weights; see `llama_weights.can_fuse` for which modules."""

    def __init__(self, weights: LlamaWeights) -> None:
        shape = LayerShape(weights.kv_heads, weights.head_dim, weights.head_dim)
        self.dtype, self.device = weights.final_norm.dtype, weights.final_norm.device
        self.kv_format = KVFormat((shape,) * len(weights.layers), self.dtype, self.device)
        self.vocab_size = weights.vocab_size
        self._weights = weights
        self._heads, self._kv_heads, self._head_dim = weights.heads, weights.kv_heads, weights.head_dim
        half = weights.head_dim // 2
        self._cos = weights.rotary_cos
        # With the first half negated, rotating a half is a roll: one operation less for each layer.
        self._signed_sin = torch.cat([-weights.rotary_sin[:, :half], weights.rotary_sin[:, half:]], dim=1)
        self._scale = weights.head_dim**-0.5

    def prefill(self, chunks: Sequence[PrefillChunk]) -> torch.Tensor:
        """Run several chunks packed one after the other and return the logits after each, `[chunks, V]`."""
        spans = self._spans(chunks)
        ids = [token for chunk in chunks for token in chunk.token_ids]
        positions = torch.cat([torch.arange(c.start, c.start + len(c.token_ids)) for c in chunks])
        hidden, cos, sin = self._embed(ids, positions)
        for index in range(len(self._weights.layers)):
            query, key, value = self._project(index, hidden, cos, sin)
            mixed = torch.cat([self._attend_chunk(index, span, query, key, value) for span in spans])
            hidden = self._finish(index, hidden, mixed)
        last = torch.tensor([span.end - 1 for span in spans], device=self.device)
        return self._logits(hidden[last])

    def decode(self, batch: KVBlock, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the rows 0..B-1 and return the logits `[B, V]`."""
        count = len(token_ids)
        at = torch.tensor(positions, device=self.device)
        rows = torch.arange(count, device=self.device)
        mask = torch.zeros(count, 1, 1, batch.capacity, dtype=self.dtype, device=self.device)
        mask.masked_fill_(
            (torch.arange(batch.capacity, device=self.device) > at[:, None])[:, None, None], -torch.inf
        )
        hidden, cos, sin = self._embed(token_ids, at)
        for index in range(len(self._weights.layers)):
            query, key, value = self._project(index, hidden, cos, sin)
            keys, values = batch.keys[index][:count], batch.values[index][:count]
            keys[rows, :, at] = key
            values[rows, :, at] = value
            query = query.view(count, self._kv_heads, -1, self._head_dim)
            scores = torch.matmul(query, keys.transpose(-1, -2)).add_(mask)
            mixed = torch.matmul(torch.softmax(scores, -1), values)
            hidden = self._finish(index, hidden, mixed.view(count, -1))
        return self._logits(hidden)

    def _embed(
        self, token_ids: Sequence[int], positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return hidden states `[T, C]` and the rotation of each token, cosine and signed sine `[T, 1, D]`."""
        positions = positions.to(self.device)
        hidden = embed(torch.tensor(token_ids, device=self.device), self._weights.embedding)
        return hidden, self._cos[positions, None], self._signed_sin[positions, None]

    def _project(
        self, index: int, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scaled, rotated queries `[T, Hq, D]`, rotated keys and values `[T, Hk, D]`."""
        layer = self._weights.layers[index]
        normed = self._norm(hidden, layer.input_norm)
        qkv = linear(normed, layer.qkv, layer.qkv_bias).view(len(hidden), -1, self._head_dim)
        both = qkv[:, : self._heads + self._kv_heads]
        rotated = torch.addcmul(both * cos, both.roll(self._head_dim // 2, -1), sin)
        return (
            rotated[:, : self._heads] * self._scale,
            rotated[:, self._heads :],
            qkv[:, self._heads + self._kv_heads :],
        )

    def _attend_chunk(
        self,
        index: int,
        span: _Span,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> torch.Tensor:
        """Store a chunk's keys and values and return what its tokens attend to, `[T, Hq * D]`."""
        tokens, start = span.end - span.begin, span.chunk.start
        length = start + tokens
        keys, values = span.chunk.block.keys[index][0], span.chunk.block.values[index][0]
        keys[:, start:length] = key[span.begin : span.end].transpose(0, 1)
        values[:, start:length] = value[span.begin : span.end].transpose(0, 1)
        groups = query[span.begin : span.end].transpose(0, 1).reshape(self._kv_heads, -1, self._head_dim)
        scores = torch.matmul(groups, keys[:, :length].transpose(-1, -2))
        scores = scores.view(self._heads, tokens, length).add_(span.mask)
        weights = torch.softmax(scores, -1).view(self._kv_heads, -1, length)
        mixed = torch.matmul(weights, values[:, :length])
        return mixed.view(self._heads, tokens, self._head_dim).transpose(0, 1).reshape(tokens, -1)

    def _finish(self, index: int, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Add attention's output and the feed-forward block to the residual stream, `[T, C]`."""
        layer = self._weights.layers[index]
        hidden = hidden + linear(mixed, layer.output)
        normed = self._norm(hidden, layer.post_norm)
        gate, up = linear(normed, layer.gate_up).chunk(2, -1)
        return hidden.add_(linear(F.silu(gate).mul_(up), layer.down))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(self._norm(hidden, self._weights.final_norm), self._weights.head)

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self._weights.norm_eps)

    def _spans(self, chunks: Sequence[PrefillChunk]) -> list[_Span]:
        spans, begin = [], 0
        for chunk in chunks:
            end = begin + len(chunk.token_ids)
            spans.append(_Span(chunk, begin, end, self._causal_mask(chunk.start, end - begin)))
            begin = end
        return spans

    def _causal_mask(self, start: int, tokens: int) -> torch.Tensor:
        mask = torch.full((tokens, start + tokens), -torch.inf, dtype=self.dtype, device=self.device)
        return mask.triu_(start + 1)
