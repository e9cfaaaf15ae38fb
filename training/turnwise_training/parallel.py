"""What every process of a run has to know of the others: shares of a batch, sums, gathered rows, whole states.

Data parallel without a wrapper: every process holds the model (or its FSDP2 shards), takes its share of the
micro-batches of one global minibatch, and gradients are summed once an optimizer step. Losses are divided by the
global count, so that any number of processes gives the result of one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

T = TypeVar("T")

RANK_SEEDS = 100_003
"""The distance between the seeds of two processes, where a process draws numbers of its own (dropout)."""


class Parallel:
    """This process among those that `accelerate launch` started; alone without it."""

    def __init__(self) -> None:
        self._accelerator = Accelerator()
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Tell whether this process writes the files."""
        return self.rank == 0

    def place(self, model: nn.Module) -> None:
        """Move a model to this process's device."""
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
        values: list[T] = gather_object([value])
        return values

    def any(self, value: bool) -> bool:
        """Tell whether the value is true on any process."""
        return self.sum(float(value)) > 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up each gradient over the processes; a parameter without one counts as 0."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def clip_gradients(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the gradients to a norm of at most `limit`; return the norm before."""
        norm: Tensor = torch.nn.utils.clip_grad_norm_(list(parameters), limit)
        return float(norm)

    def spread(self, items: Sequence[T], work: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
        """Return work(items), item by item, each process working on one stretch of `items` and getting all results."""
        size = -(-len(items) // self.world)
        done = work(items[self.rank * size : (self.rank + 1) * size])
        if self.world == 1:
            return done
        gathered: list[Any] = gather_object(done)
        return gathered

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()
