"""What every process of a run has to know of the others: shares of a batch, sums, gathered values.

Data parallel without a wrapper: every process holds the model (or its FSDP2 shards), takes its share of the
micro-batches of one global minibatch, and gradients are summed once an optimizer step. Losses are divided by the
global count, so that any number of processes gives the result of one.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from turnwise_training.errors import ConfigurationError, TrainingError
from turnwise_training.sharding import shard, whole

T = TypeVar("T")

RANK_SEEDS = 100_003
"""The distance between the seeds of two processes, where a process draws numbers of its own (dropout)."""


class Parallel:
    """This process among those that `accelerate launch` started; alone without it."""

    def __init__(self) -> None:
        wants_shards = _wants_shards()
        self._accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device
        self.is_sharded: bool = wants_shards and self.world > 1

    @property
    def is_main(self) -> bool:
        """Tell whether this process writes the files."""
        return self.rank == 0

    def place(self, model: nn.Module) -> None:
        """Move a model to this process's device, or its shard where the launch asks for FSDP2."""
        if self.is_sharded:
            shard(model, self.device)
        else:
            model.to(self.device)

    def share(self, micros: Sequence[T]) -> list[tuple[T, float]]:
        """Return this process's micro-batches, each with weight 1.

        A process that is left without one when others have one repeats the last with weight 0: collectives inside a
        sharded model need all processes.
        """
        turns = -(-len(micros) // self.world)
        indices = [turn * self.world + self.rank for turn in range(turns)]
        return [(micros[index], 1.0) if index < len(micros) else (micros[-1], 0.0) for index in indices]

    def sum(self, value: float) -> float:
        """Return the sum of every process's value."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in order of rank."""
        if self.world == 1:
            return [value]
        values: list[T] = [value] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, value: bool) -> bool:
        """Tell whether the value is true on any process."""
        return self.sum(float(value)) > 0

    def any_in_step(self, value: bool) -> bool:
        """Tell whether the value is true here, or, where a sharded model makes processes keep step, on any."""
        return self.any(value) if self.is_sharded else value

    def on_main(self, work: Callable[[], None]) -> None:
        """Do `work` on the first process alone; an error raised there on purpose is raised on every process."""
        problem: TrainingError | None = None
        if self.is_main:
            try:
                work()
            except TrainingError as error:
                problem = error
        problem = self.gather(problem)[0]
        if problem is not None:
            raise problem

    def whole(self, state: T) -> T:
        """Return a nested state with every sharded tensor whole on the first process, and None elsewhere."""
        return whole(state, keep=self.is_main) if self.is_sharded else state

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up each gradient over the processes; a parameter without one counts as 0. Shards are summed already."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def clip_gradients(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the gradients to a norm of at most `limit`; return the norm before."""
        return _as_float(torch.nn.utils.clip_grad_norm_(list(parameters), limit))

    def norm_of_sum(self, gradients: Sequence[Tensor]) -> float:
        """Return the norm that gradients would have once they were summed; they stay as they are."""
        if self.world > 1 and not self.is_sharded:
            gradients = [gradient.clone() for gradient in gradients]
            for gradient in gradients:
                dist.all_reduce(gradient)
        return _as_float(torch.nn.utils.get_total_norm(gradients))

    def spread(self, items: Sequence[T], work: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
        """Return work(items), item by item, each process working on one stretch of `items` and getting all results.

        Where a sharded model makes processes keep step, stretches are made equal by doing the last item again.
        """
        size = -(-len(items) // self.world)
        mine = items[self.rank * size : (self.rank + 1) * size]
        if self.is_sharded and items:
            mine = [*mine, *[items[-1]] * (size - len(mine))]
        return [item for part in self.gather(work(mine)) for item in part][: len(items)]

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()


def _as_float(norm: Tensor) -> float:
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _wants_shards() -> bool:
    """Tell whether `accelerate launch` was asked for FSDP2; raises ConfigurationError for FSDP1."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigurationError("only FSDP2 is supported: launch with --use_fsdp --fsdp_version 2")
    return True
