"""The language-model loss of a batch of rows, fused where it can be; it knows nothing of data, optimizers or steps."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from turnwise_training.fused_llama import fused_nll, is_fusable

IGNORED = -100
"""The label of a token the loss is not taken on."""


class Loss(Protocol):
    """The summed NLL of a batch of rows, each label times its weight: see `token_nll`."""

    def __call__(
        self,
        model: PreTrainedModel,
        ids: Tensor,
        labels: Tensor,
        positions: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor: ...


def token_nll(
    model: PreTrainedModel,
    ids: Tensor,
    labels: Tensor,
    positions: Tensor | None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the summed negative log-likelihood, in nats, of the labelled tokens, by the model's own forward.

    `ids`, `labels`, `positions` and `weights` are [B, T]; `labels[:, t]` is the token that should follow `ids[:, t]`,
    or IGNORED. Conversations packed into one row are kept apart by positions that begin again at 0 (a cache or an
    attention mask here would silently join them); without positions a row is one sequence.
    """
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    if weights is None:
        return functional.cross_entropy(exact, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    each = functional.cross_entropy(exact, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return (each * weights.flatten()).sum()


def loss_function(*, compile: bool, precision: str) -> Loss:  # noqa: A002 (the recipe's own word)
    """Return `token_nll`, or its equal for a compiled Llama; products are in `precision`, weights stay float32."""
    generic = torch.compile(token_nll, dynamic=False) if compile else token_nll
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def loss(
        model: PreTrainedModel,
        ids: Tensor,
        labels: Tensor,
        positions: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor:
        if compile and weights is None and is_fusable(model):
            return fused_nll(model, ids, labels, positions, dtype=dtype, compile=True)
        with torch.autocast(ids.device.type, dtype, enabled=dtype is torch.bfloat16):
            return generic(model, ids, labels, positions, weights)

    return loss
