"""FSDP2: a model's weights laid out over all processes, and whole states of it; it knows nothing of stages.

A state is saved whole, so that a run goes on, and a model is exported, as if it had never been sharded.
"""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F", bound=Callable[..., Any])


def shard(model: nn.Module, device: torch.device) -> None:
    """Lay the weights of a model out over all processes, layer by layer; gradients are summed, not averaged."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
    for module in [*layers, model]:
        sharded: FSDPModule = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(enable=True)  # gloo knows no scaled sum


def reads_weights(work: F) -> F:
    """Let a function of a model read weights without calling the model: sharded ones are whole while it runs.

    It runs as if it were the model's `forward`, which is where FSDP2 gathers weights and lets them go.
    """
    name = f"gathered_{work.__name__}"

    @wraps(work)
    def run(model: object, *args: object, **named: object) -> object:
        if not isinstance(model, FSDPModule):
            return work(model, *args, **named)
        if not hasattr(model, name):
            setattr(model, name, MethodType(work, model))
            register_fsdp_forward_method(cast("nn.Module", model), name)
        return getattr(model, name)(*args, **named)

    return cast("F", run)


def plain_type(model: M) -> type[M]:
    """Return the class a model had before FSDP2 gave it one of its own."""
    return cast("type[M]", next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule)))


def whole(state: Any, *, keep: bool) -> Any:
    """Return a nested state in which every sharded tensor is whole, on the CPU; all processes have to call this.

    Where `keep` is false, a process helps to gather and gets None in each sharded tensor's place: memory.
    """
    if isinstance(state, DTensor):
        gathered = state.full_tensor()
        return gathered.cpu() if keep else None
    if isinstance(state, dict):
        return {key: whole(value, keep=keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value, keep=keep) for value in state)
    return state


def laid_out_like(state: Any, like: Any) -> Any:
    """Return a nested whole state with each tensor laid out as the one at its place in `like`; all hold all of it."""
    if isinstance(like, dict):
        return {key: laid_out_like(value, like.get(key)) for key, value in state.items()}
    if isinstance(like, DTensor) and state.shape == like.shape:
        return distribute_tensor(state.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return state
