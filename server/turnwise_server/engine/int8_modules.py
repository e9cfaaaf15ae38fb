"""Rounds the matrices of a `transformers` module to int8, in place, before anything runs it."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from turnwise_server.engine.int8 import Int8Matrix, can_round, embed, linear, round_to_int8
from turnwise_server.errors import CheckpointError, ConfigurationError


class Int8Linear(nn.Module):
    """Stands where a linear layer was."""

    def __init__(self, weight: Int8Matrix, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return `[..., out]` for `[..., in]`."""
        return linear(inputs, self.weight, self.bias)


class Int8Embedding(nn.Module):
    """Stands where the table of token embeddings was; it shares its rows with the output layer."""

    def __init__(self, weight: Int8Matrix) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return `[..., C]` for `[...]`."""
        return embed(token_ids, self.weight)


@torch.inference_mode()
def round_module(module: PreTrainedModel) -> None:
    """Replace each linear layer whose shape int8 takes, and free it at once. Subclasses of linear layers stay.

    What stays is copied: one weight that still lies in the mapped checkpoint file would keep all of it in memory.
    An output layer that shares its matrix with the token embeddings goes on sharing it, or stays, too.

    Raises:
        CheckpointError: a weight is not a finite number.
        ConfigurationError: nothing in the module can be rounded.
    """
    _round_shared_embeddings(module)
    tied = getattr(module.get_input_embeddings(), "weight", None)
    for name in [name for name, layer in module.named_modules() if type(layer) in (nn.Linear, Conv1D)]:
        layer = module.get_submodule(name)
        weight = layer.weight.detach().t() if isinstance(layer, Conv1D) else layer.weight.detach()
        if layer.weight is not tied and can_round(weight):
            bias = None if layer.bias is None else layer.bias.detach().clone()
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, Int8Linear(_round(name, weight), bias))
    if not any(isinstance(layer, Int8Linear) for layer in module.modules()):
        raise ConfigurationError(
            f"The architecture {type(module).__name__!r} has no linear layers that int8 takes. "
            "Serve it with --quantization none."
        )
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def _round_shared_embeddings(module: PreTrainedModel) -> None:
    """Round the token embeddings, if the output layer shares their matrix, together with it."""
    head, embedding = module.get_output_embeddings(), module.get_input_embeddings()
    if type(head) is not nn.Linear or type(embedding) is not nn.Embedding:
        return
    if head.weight is embedding.weight and can_round(head.weight):
        matrix = _round("lm_head", head.weight.detach())
        module.set_input_embeddings(Int8Embedding(matrix))
        module.set_output_embeddings(Int8Linear(matrix, head.bias))


def _round(name: str, weight: torch.Tensor) -> Int8Matrix:
    try:
        return round_to_int8(weight)
    except ValueError as error:
        raise CheckpointError(
            f"The weights of {name!r} cannot be rounded to int8: {error}. Restore the model from where it came from."
        ) from error
