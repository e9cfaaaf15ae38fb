"""The two optimizers and the one schedule that drives them."""

import math
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from turnwise_training.config import Optimization
from turnwise_training.errors import ConfigurationError
from turnwise_training.sharding import laid_out_like


def rate_share(step: int, steps: int, settings: Optimization) -> float:
    """Return the share of the peak rate at `step` of `steps`: a linear warmup, then the schedule's fall."""
    warmup = settings.warmup_steps or max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        left = (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    else:
        left = min(1.0, (steps - step) / max(1, round(settings.decay_share * steps)))
    return settings.final_share + (1 - settings.final_share) * left


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms (weight decay on matrices only)."""

    def __init__(self, model: nn.Module, settings: Optimization) -> None:
        self._settings = settings
        hidden, embedded, vectors = _split(model)
        with_muon = settings.muon_learning_rate > 0
        if with_muon and not hidden:
            raise ConfigurationError(
                "Muon trains whole matrices of the layers and an adapter has none: set muon_learning_rate: 0"
            )
        if with_muon and any(isinstance(weight, DTensor) for weight in hidden):
            raise ConfigurationError(
                "Muon needs whole matrices and FSDP2 holds shards: set muon_learning_rate: 0 or launch without FSDP2"
            )
        decayed = embedded if with_muon else [*hidden, *embedded]
        self._adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
        )
        # Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
        self._muon = (
            torch.optim.Muon(hidden, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
            if with_muon
            else None
        )

    def step(self, share: float) -> None:
        """Update every weight at `share` of the peak rates, then clear the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = share * self._settings.learning_rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        if self._muon is not None:
            for group in self._muon.param_groups:
                group["lr"] = share * self._settings.muon_learning_rate
            self._muon.step()  # type: ignore[no-untyped-call]
            self._muon.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return everything `load_state_dict` needs to go on exactly."""
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict() if self._muon else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        _load(self._adamw, state["adamw"])
        if self._muon is not None:
            _load(self._muon, state["muon"])


def _load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state whose tensors are whole, laid out as the weights they belong to."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    laid_out = {
        index: {
            key: laid_out_like(value, weights[index]) if torch.is_tensor(value) else value
            for key, value in values.items()
        }
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": laid_out})


def _split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices inside layers, the embedding matrices, and the vectors (norms, biases)."""
    hidden, embedded, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif ".layers." in name or ".h." in name:
            hidden.append(parameter)
        else:
            embedded.append(parameter)
    return hidden, embedded, vectors
