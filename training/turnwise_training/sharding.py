"""FSDP2: a model's weights laid out over all processes, and whole states of it; it knows nothing of stages.

A state is saved whole, so that a run goes on, and a model is exported, as if it had never been sharded.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

P = ParamSpec("P")
R = TypeVar("R")


def shard(model: nn.Module, device: torch.device) -> None:
    """Lay the weights of a model out over all processes, layer by layer; gradients are summed, not averaged."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
    for module in [*layers, model]:
        sharded: FSDPModule = fully_shard(module, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(enable=True)  # gloo knows no scaled sum
    model.register_load_state_dict_pre_hook(_lay_out_state)


def gathering(model: nn.Module, work: Callable[P, R]) -> Callable[P, R]:
    """Return `work`, which reads the model's weights without calling the model, such that it finds them whole.

    It is run as if it were the model's `forward`, which is where FSDP2 gathers weights and lets them go.
    """
    if not isinstance(model, FSDPModule):
        return work
    name = f"gathered_{work.__name__}_{id(work)}"
    setattr(model, name, MethodType(lambda _, *args, **named: work(*args, **named), model))
    register_fsdp_forward_method(model, name)
    run: Callable[P, R] = getattr(model, name)
    return run


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


def laid_out_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor laid out as `like` is; every process has to hold all of it."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _lay_out_state(model: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Lay a whole state out as the model is, before the model takes it."""
    for name, value in model.state_dict().items():
        if prefix + name in state:
            state[prefix + name] = laid_out_like(state[prefix + name], value)
