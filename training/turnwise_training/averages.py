"""The running average of the policy's weights that PPO exports."""

from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Holds average <- decay * average + (1 - decay) * weights for the trained parameters of a model.

    A decay of 0 follows the weights themselves. Source: InstructGPT (arXiv 2203.02155), appendix C.4: 0.992.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self._weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Take one step towards the model's weights."""
        for name, parameter in model.named_parameters():
            if name in self._weights:
                self._weights[name].lerp_(parameter, 1 - self._decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the average."""
        for name, parameter in model.named_parameters():
            if name in self._weights:
                parameter.copy_(self._weights[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return self._weights

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self._weights = dict(state)
