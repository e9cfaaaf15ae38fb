"""A Llama's language-model loss made of few large operations, for training on a CPU; it knows no other architecture.

It equals the Hugging Face forward, on the same weights, and is quicker for four reasons: one product makes queries,
keys and values and one makes gate and up; attention is batched products, which keep the cores busier than torch's CPU
kernel does at short rows; the [N, V] logits never exist at once; and each layer is compiled alone, so that what
compiles is small and the sums into the embedding, outside, keep one order (a resumed run is bit-equal).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel

CHUNK = 1024
"""Tokens whose logits exist at once; 8,192 words in bfloat16 then make 16 MiB, which stays in a last-level cache."""


BLOCK, BLOCKS = 128, 8
"""Queries that attend together, more where a row would make over 8 blocks (each is compiled); keys after a block's
end are left out, nearly half of all in a long row."""


def is_fusable(model: PreTrainedModel) -> bool:
    """Tell whether `fused_nll` computes this model's loss: a plain Llama on the CPU, whole and without adapters."""
    if type(model) is not LlamaForCausalLM:
        return False
    config = model.config
    plain = config.hidden_act == "silu" and not config.attention_bias and not config.mlp_bias
    linears = [part for layer in model.model.layers for part in _linears(layer)]
    whole = all(type(part) is nn.Linear for part in [*linears, model.lm_head])
    return bool(plain and whole and config.attention_dropout == 0 and model.device.type == "cpu")


def fused_nll(
    model: LlamaForCausalLM,
    ids: Tensor,
    labels: Tensor,
    positions: Tensor | None,
    *,
    dtype: torch.dtype,
    compile: bool,  # noqa: A002 (the recipe's own word)
) -> Tensor:
    """Return the summed negative log-likelihood, in nats, of the labelled tokens; products are taken in `dtype`.

    Arguments are those of `lm_loss.token_nll`; any negative label is ignored. The residual stream, norms and sums
    stay in the weights' own type.
    """
    config, llama = model.config, model.model
    hidden = llama.embed_tokens(ids)
    places = torch.arange(ids.shape[1])[None] if positions is None else positions
    cos, sin = llama.rotary_emb(hidden, places)
    bias = attention_bias(places, hidden.dtype).expand(len(ids), -1, -1, -1)
    heads = (config.num_attention_heads, config.num_key_value_heads)
    built = _compiled if compile else _as_written
    for layer in llama.layers:
        hidden = built(_layer)(hidden, _weights(layer), cos, sin, bias, heads, config.rms_norm_eps, dtype)
    normed = built(_norm)(hidden, llama.norm.weight, config.rms_norm_eps).to(dtype)
    total: Tensor = _ChunkedNLL.apply(  # type: ignore[no-untyped-call]
        normed.flatten(0, 1), model.lm_head.weight, labels.flatten(), built(_chunk_gradients)
    )
    return total


def attention_bias(places: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores [B, H, T, T]: 0 where a token may look, -inf elsewhere.

    `places` [B or 1, T] are position ids; where they begin again at 0, another sequence begins.
    """
    sequence = (places == 0).cumsum(-1)
    width = places.shape[1]
    seen = (sequence[:, :, None] == sequence[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    return torch.zeros((), dtype=dtype).where(seen, -torch.inf)[:, None]


class _LayerWeights(NamedTuple):
    before_attention: Tensor
    qkv: tuple[Tensor, ...]
    out: Tensor
    before_mlp: Tensor
    gate_up: tuple[Tensor, ...]
    down: Tensor


def _weights(layer: Any) -> _LayerWeights:
    query, key, value, out, gate, up, down = (part.weight for part in _linears(layer))
    norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
    return _LayerWeights(norms[0], (query, key, value), out, norms[1], (gate, up), down)


def _linears(layer: Any) -> tuple[nn.Linear, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    )


def _layer(
    hidden: Tensor,
    weights: _LayerWeights,
    cos: Tensor,
    sin: Tensor,
    bias: Tensor,
    heads: tuple[int, int],
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return the residual stream [B, T, H] after one layer; `cos` and `sin` are [B or 1, T, D]."""
    queries, keys = heads
    normed = _norm(hidden, weights.before_attention, eps).to(dtype)
    qkv = functional.linear(normed, torch.cat(weights.qkv).to(dtype))
    query_key, value = torch.split(
        qkv.view(*hidden.shape[:2], -1, cos.shape[-1]), [queries + keys, keys], dim=2
    )
    query, key = torch.split(_rotate(query_key, cos, sin), [queries, keys], dim=2)
    grouped = _heads_first(query * query.shape[-1] ** -0.5, keys).to(dtype)
    mixed = _attend(grouped, _heads_first(key, keys).to(dtype), _heads_first(value, keys), bias)
    rows, width = hidden.shape[:2]
    joined = mixed.view(rows, queries, width, -1).transpose(1, 2).flatten(2)
    hidden = hidden + functional.linear(joined, weights.out.to(dtype))
    normed = _norm(hidden, weights.before_mlp, eps).to(dtype)
    gate, up = functional.linear(normed, torch.cat(weights.gate_up).to(dtype)).chunk(2, dim=-1)
    return hidden + functional.linear(functional.silu(gate) * up, weights.down.to(dtype))


def _norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [B, T, heads, D] by each token's angles."""
    first, second = vectors.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return vectors * cos[:, :, None] + turned * sin[:, :, None]


def _heads_first(vectors: Tensor, groups: int) -> Tensor:
    """Lay [B, T, groups * G, D] out as [B * groups, G * T, D]: query heads that share a key head side by side."""
    rows, width, heads, size = vectors.shape
    return vectors.transpose(1, 2).reshape(rows * groups, heads // groups * width, size)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Return attention [B * K, G, T, D] of scaled queries [B * K, G * T, D], each block on the keys up to its end."""
    width = key.shape[1]
    by_head = query.view(len(query), -1, width, query.shape[-1])
    mixed, size = [], max(BLOCK, -(-width // BLOCKS))
    for start in range(0, width, size):
        end = min(start + size, width)
        block: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            by_head[:, :, start:end].flatten(1, 2), key[:, :end], value[:, :end], bias[..., start:end, :end]
        )
        mixed.append(block.view(len(query), -1, end - start, query.shape[-1]))
    return torch.cat(mixed, dim=2)


class _Attention(torch.autograd.Function):
    """Softmax attention with its gradient by hand: autograd's own compiles to loops that are several times slower."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return [B * K, G * Q, D] for scaled queries so laid out, keys and values [B * K, T, D], bias [B, 1, Q, T]."""
        scores = (query @ key.transpose(1, 2)).view(bias.shape[0], -1, *bias.shape[2:]) + bias
        raised = (scores - scores.amax(-1, keepdim=True)).exp()
        share = (raised / raised.sum(-1, keepdim=True)).to(query.dtype).view(*query.shape[:2], -1)
        mixed = share @ value
        ctx.save_for_backward(query, key, value, share, mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, share, mixed = ctx.saved_tensors
        exact = torch.promote_types(query.dtype, torch.float32)
        of_share = (gradient @ value.transpose(1, 2)).to(exact)
        mean = (gradient.to(exact) * mixed).sum(-1, keepdim=True)  # each row's sum of share * of_share
        of_scores = (share * (of_share - mean)).to(query.dtype)
        of_key = of_scores.transpose(1, 2) @ query
        return of_scores @ key, of_key, share.transpose(1, 2) @ gradient, None


ChunkGradients = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class _ChunkedNLL(torch.autograd.Function):
    """The summed loss of hidden states [N, H] under an output layer [V, H]; gradients are made with the loss."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, gradients: ChunkGradients
    ) -> Tensor:
        rounded = weight.to(hidden.dtype)
        total, of_weight, of_hidden = weight.new_zeros(()), torch.zeros_like(weight), []
        for states, wanted in zip(torch.split(hidden, CHUNK), torch.split(labels, CHUNK), strict=True):
            nll, of_logits, of_states = gradients(states, rounded, wanted)
            total += nll
            of_weight += of_logits.t() @ states
            of_hidden.append(of_states)
        ctx.save_for_backward(torch.cat(of_hidden), of_weight)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradient.to(of_hidden.dtype), of_weight * gradient, None, None


def _chunk_gradients(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss of hidden states [N, H], its gradient by their logits [N, V], and by them."""
    logits = (hidden @ weight.t()).to(torch.promote_types(hidden.dtype, torch.float32))
    is_trained = labels >= 0
    chosen = labels.clamp(min=0)[:, None]
    log_sum = logits.logsumexp(-1, keepdim=True)
    nll = (log_sum - logits.gather(1, chosen))[:, 0].where(is_trained, 0.0).sum()
    is_chosen = torch.arange(len(weight), device=labels.device) == chosen
    of_logits = (((logits - log_sum).exp() - is_chosen.to(logits.dtype)) * is_trained[:, None]).to(
        hidden.dtype
    )
    return nll, of_logits, of_logits @ weight


Work = TypeVar("Work", bound=Callable[..., Any])


@cache
def _compiled(work: Work) -> Work:
    return cast("Work", torch.compile(work, dynamic=False))


def _as_written(work: Work) -> Work:
    return work
