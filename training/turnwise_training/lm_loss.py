"""The language-model loss of a batch of rows; it knows nothing of data, optimizers or steps."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from turnwise_training.sharding import reads_weights

IGNORED = -100
"""The label of a token the loss is not taken on."""


@reads_weights
def token_nll(model: LlamaForCausalLM, ids: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
    """Return the summed negative log-likelihood, in nats, of the labelled tokens.

    `ids`, `labels` and `positions` are [B, T]; `labels[:, t]` is the token that should follow `ids[:, t]`, or
    IGNORED. Conversations packed into one row are kept apart by positions that begin again at 0; without
    positions a row is one sequence.
    """
    hidden = _causal_hidden(model, ids) if positions is None else _packed_hidden(model, ids, positions)
    logits = model.lm_head(hidden)
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(
        exact.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _causal_hidden(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Run the layers without the mask that `LlamaModel.forward` builds when traced: it halves SDPA's speed."""
    llama = model.model
    hidden = llama.embed_tokens(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    rotary = llama.rotary_emb(hidden, position_ids=positions)
    for layer in llama.layers:
        hidden = layer(hidden, attention_mask=None, position_ids=positions, position_embeddings=rotary)
    normed: Tensor = llama.norm(hidden)
    return normed


def _packed_hidden(model: LlamaForCausalLM, ids: Tensor, positions: Tensor) -> Tensor:
    """Run the model on packed rows; a cache or a mask here would silently join the conversations."""
    hidden: Tensor = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    return hidden


Loss = Callable[[LlamaForCausalLM, Tensor, Tensor, Tensor | None], Tensor]


def loss_function(*, compile: bool, precision: str) -> Loss:  # noqa: A002 (the recipe's own word)
    """Return `token_nll`, compiled or not, under bfloat16 autocast or not; weights stay float32."""
    inner = torch.compile(token_nll, dynamic=False) if compile else token_nll

    def loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor, positions: Tensor | None) -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return inner(model, ids, labels, positions)

    return loss
