"""The step every stage shares: exact accumulation over micro-batches, one update, one log line."""

import sys
from collections.abc import Iterator

import torch
from transformers import LlamaForCausalLM

from turnwise_training.batches import Rows
from turnwise_training.config import PretrainConfig, SFTConfig
from turnwise_training.lm_loss import Loss, loss_function
from turnwise_training.optimizers import Optimizers, rate_share
from turnwise_training.run import Progress, Run


def accumulate(model: LlamaForCausalLM, loss: Loss, batch: Rows, *, micro_tokens: int) -> float:
    """Add the gradient of the mean loss over the batch's trained tokens to the weights; return that loss in nats.

    The sum over a micro-batch is divided by the whole batch's count, so the split never changes the result.
    """
    micro_rows = max(1, micro_tokens // batch.ids.shape[1])
    count = batch.trained_tokens
    total = 0.0
    for start in range(0, len(batch), micro_rows):
        micro = batch.take(slice(start, start + micro_rows))
        nll = loss(model, micro.ids, micro.labels, micro.positions) / count
        nll.backward()  # type: ignore[no-untyped-call]
        total += nll.item()
    return total


def train(
    model: LlamaForCausalLM,
    batches: Iterator[Rows],
    run: Run,
    optimizers: Optimizers,
    *,
    config: PretrainConfig | SFTConfig,
    first_step: int,
    steps: int,
) -> None:
    """Train from `first_step` to `steps`, one batch a step, saving the whole state as it goes."""
    loss = loss_function(compile=config.compile, precision=config.precision)
    progress = Progress(steps=steps, tokens_per_step=config.batch_tokens, stream=sys.stderr)
    model.train()
    for step, batch in enumerate(batches, start=first_step):
        value = accumulate(model, loss, batch, micro_tokens=config.micro_tokens)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimization.grad_clip).item()
        share = rate_share(step, steps, config.optimization)
        optimizers.step(share)
        shape = list(batch.ids.shape)
        run.log({"step": step + 1, "loss": value, "grad_norm": norm, "rate_share": share, "rows": shape})
        progress.show(step + 1, value)
        if (step + 1) % config.save_every == 0 or step + 1 == steps:
            run.save(step + 1, {"model": model.state_dict(), "optimizers": optimizers.state_dict()})


def resume(run: Run, model: LlamaForCausalLM, optimizers: Optimizers) -> int:
    """Load the run's newest whole step into the model and the optimizers; return how many steps are done."""
    state = run.load()
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizers.load_state_dict(state["optimizers"])
    return int(state["step"])
