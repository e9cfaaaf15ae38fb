"""Take the weights of a Llama or Qwen2 module and fuse them for `LlamaForward`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from turnwise_server.engine.int8 import Matrix, stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MODULES = {"LlamaForCausalLM", "Qwen2ForCausalLM", "MistralForCausalLM"}
_STATIC_ROPE = {"default", "linear", "llama3", "yarn"}
"""Rotary variants whose frequencies do not depend on the sequence's length."""


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer's weights; matrices are `[out, in]`, of floats or rounded to int8."""

    input_norm: torch.Tensor
    qkv: Matrix
    qkv_bias: torch.Tensor | None
    output: Matrix
    post_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A whole model's weights; the rotary tables are `[context, head_dim]`."""

    embedding: Matrix
    head: Matrix
    vocab_size: int
    final_norm: torch.Tensor
    layers: tuple[LlamaLayer, ...]
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rotary_cos: torch.Tensor
    rotary_sin: torch.Tensor


def can_fuse(module: PreTrainedModel) -> bool:
    """Say whether `fuse` understands every feature of the module."""
    if type(module).__name__ not in _MODULES:
        return False
    config = module.config
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    first = module.model.layers[0]
    biased = (first.self_attn.o_proj, first.mlp.gate_proj, first.mlp.up_proj, first.mlp.down_proj)
    return (
        config.hidden_act == "silu"
        and config.rope_parameters.get("rope_type") in _STATIC_ROPE
        and getattr(config, "sliding_window", None) is None
        and layer_types == {"full_attention"}
        and all(projection.bias is None for projection in biased)
        and module.lm_head.bias is None
        and first.self_attn.head_dim % 2 == 0
    )


@torch.inference_mode()
def fuse(module: PreTrainedModel, context_length: int) -> LlamaWeights:
    """Return the module's weights, fused. The module is emptied layer by layer, so that memory holds them once."""
    config, model = module.config, module.model
    final_norm = model.norm.weight.detach()
    positions = torch.arange(context_length, device=final_norm.device)[None]
    cos, sin = model.rotary_emb(final_norm, positions)
    head_dim = model.layers[0].self_attn.head_dim
    return LlamaWeights(
        embedding=_matrix(model.embed_tokens),
        head=_matrix(module.lm_head),
        vocab_size=config.vocab_size,
        final_norm=final_norm,
        layers=tuple(_fuse_layer(module, index) for index in range(len(model.layers))),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        norm_eps=config.rms_norm_eps,
        rotary_cos=cos[0],
        rotary_sin=sin[0],
    )


def _fuse_layer(module: PreTrainedModel, index: int) -> LlamaLayer:
    layers = module.model.layers
    layer = layers[index]
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    has_bias = attention.q_proj.bias is not None
    fused = LlamaLayer(
        input_norm=layer.input_layernorm.weight.detach(),
        qkv=stack([_matrix(p) for p in projections]),
        qkv_bias=torch.cat([p.bias for p in projections]) if has_bias else None,
        output=_matrix(attention.o_proj),
        post_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=stack([_matrix(mlp.gate_proj), _matrix(mlp.up_proj)]),
        down=_matrix(mlp.down_proj),
    )
    layers[index] = nn.Identity()
    return fused


class _HasMatrix(Protocol):
    weight: Matrix


def _matrix(layer: _HasMatrix) -> Matrix:
    weight = layer.weight
    return weight.detach() if isinstance(weight, torch.Tensor) else weight
