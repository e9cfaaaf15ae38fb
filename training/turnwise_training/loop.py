"""The step every stage shares: exact accumulation over micro-batches, one update, one log line, one saved state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from turnwise_training.batches import Rows
from turnwise_training.config import Optimization
from turnwise_training.errors import ConfigurationError
from turnwise_training.lm_loss import loss_function
from turnwise_training.optimizers import Optimizers, rate_share
from turnwise_training.parallel import Parallel
from turnwise_training.progress import Progress
from turnwise_training.run import Run
from turnwise_training.sharding import laid_out_like

M = TypeVar("M")


class Part(Protocol):
    """Something whose state a run saves and resumes."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


@dataclass(frozen=True)
class Batch(Generic[M]):
    """What one optimizer step trains on, whole on every process."""

    micros: Sequence[M]
    count: float
    """What the summed loss is divided by: trained tokens or prompts of the whole batch."""
    tokens: int
    """Tokens read, for the speed shown."""
    facts: dict[str, object] = field(default_factory=dict)
    """Goes into the log line."""


def accumulate(loss: Callable[[M], Tensor], batch: Batch[M], parallel: Parallel) -> float:
    """Add the gradient of the batch's summed loss over its count to the weights; return that mean loss.

    A micro-batch is weighed by the whole batch's count, so the split never changes the result.
    """
    total = 0.0
    for micro, weight in parallel.share(batch.micros):
        value = loss(micro) * (weight / batch.count)
        value.backward()  # type: ignore[no-untyped-call]
        total += value.item()
    return parallel.sum(total)


def update(
    model: nn.Module, optimizers: Optimizers, parallel: Parallel, *, share: float, clip: float
) -> float:
    """Sum the gradients over the processes, clip them and step once; return the norm before clipping."""
    parallel.sum_gradients(model.parameters())
    norm = parallel.clip_gradients(model.parameters(), clip)
    optimizers.step(share)
    return norm


def train(
    model: nn.Module,
    loss: Callable[[M], Tensor],
    batches: Iterator[Batch[M]],
    run: Run,
    parts: Mapping[str, Part],
    optimizers: Optimizers,
    parallel: Parallel,
    *,
    optimization: Optimization,
    save_every: int,
    first_step: int,
    steps: int,
    after_step: Callable[[int], dict[str, object]] = lambda step: {},  # noqa: ARG005
) -> None:
    """Train from `first_step` to `steps`, one batch a step, saving every part's state as it goes.

    `after_step` is called with the number of steps done before they are logged and saved; what it returns joins the
    log line.
    """
    progress = Progress(steps=steps, timing=run.folder / "timing.jsonl")
    for step, batch in enumerate(batches, start=first_step):
        with progress.phases.measure("gradient"):
            value = accumulate(loss, batch, parallel)
        share = rate_share(step, steps, optimization)
        with progress.phases.measure("update"):
            norm = update(model, optimizers, parallel, share=share, clip=optimization.grad_clip)
        done = step + 1
        line = {"step": done, "loss": value, "grad_norm": norm, "rate_share": share, **batch.facts}
        run.log({**line, **after_step(done)})
        if parallel.is_main:
            progress.show(done, tokens=batch.tokens, loss=value)
        if done % save_every == 0 or done == steps:
            run.save(done, {name: part.state_dict() for name, part in parts.items()})


def resume(run: Run, parts: Mapping[str, Part]) -> int:
    """Load the run's newest whole step into every part; return how many steps are done."""
    state = run.load()
    if state is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(laid_out_like(state[name], part.state_dict()))
    return int(state["step"])


def row_batch(rows: Rows, *, micro_tokens: int) -> Batch[Rows]:
    """Return rows as a batch, `micro_tokens` a micro-batch, counted by the weights of the trained tokens."""
    size = max(1, micro_tokens // rows.ids.shape[1])
    micros = [rows.take(slice(start, start + size)) for start in range(0, len(rows), size)]
    return Batch(micros, rows.trained_weight, rows.ids.numel(), {"rows": list(rows.ids.shape)})


def row_loss(model: PreTrainedModel, *, compile: bool, precision: str) -> Callable[[Rows], Tensor]:  # noqa: A002
    """Return the function from rows to their summed negative log-likelihood under the model, which is set to train."""
    if compile and isinstance(model, FSDPModule):
        raise ConfigurationError(
            "FSDP2 gathers weights inside what compile would take whole: set compile: false"
        )
    loss = loss_function(compile=compile, precision=precision)
    model.train()

    def rows_nll(rows: Rows) -> Tensor:
        on = rows.to(model.device)
        return loss(model, on.ids, on.labels, on.positions, on.weights)

    return rows_nll
