"""The reward model: a scalar head on a fine-tuned model, trained on rankings of K answers to a prompt."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnwise_training.adapters import VALUE, add_adapter, is_quantized, merged, save_adapter
from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.checkpoint import WEIGHTS, export_reward_model
from turnwise_training.config import Lora, RewardConfig
from turnwise_training.errors import ConfigurationError
from turnwise_training.loop import Part, resume, train
from turnwise_training.losses import ranking_loss
from turnwise_training.models import new_reward_model
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import RANK_SEEDS, Parallel
from turnwise_training.ranked import Dropped, RankedPrompt
from turnwise_training.recipe import as_json
from turnwise_training.reward_data import Micro, make_plan, read_demonstrations
from turnwise_training.reward_metrics import reward_report
from turnwise_training.run import Run, refuse_finished
from turnwise_training.scoring import batch_scores, score_ids


def prompt_loss(scores: Tensor, prompt: RankedPrompt) -> Tensor:
    """Return the mean loss over all pairs of a prompt's rankings, from the score [K] of each answer."""
    total = scores.new_zeros(())
    for order in prompt.orders:
        ranks = torch.tensor(order.ranks, device=scores.device)
        pairs = sum(1 for _ in order.pairs())
        total = total + pairs * ranking_loss(scores[order.answers], ranks, margin=order.margin)
    return total / prompt.pairs


def reward_loss(model: PreTrainedModel, *, precision: str) -> Callable[[Micro], Tensor]:
    """Return the function from prompts to the sum of their losses; each answer goes through the model once."""

    def summed(prompts: Micro) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            scores = batch_scores(model, [ids for prompt in prompts for ids in prompt.answers])
        parts = scores.split_with_sizes([len(prompt.answers) for prompt in prompts])
        return torch.stack([prompt_loss(*part) for part in zip(parts, prompts, strict=True)]).sum()

    return summed


def centre(model: PreTrainedModel, demonstrations: Sequence[list[int]]) -> None:
    """Shift the scores so that demonstrations score 0 on average (InstructGPT, section 3.5)."""
    if demonstrations:
        scores = score_ids(model, demonstrations)
        model.config.reward_bias -= math.fsum(scores) / len(scores)


def judge(model: PreTrainedModel, prompts: Sequence[RankedPrompt]) -> dict[str, object]:
    """Return how well a model's scores agree with the rankings of some prompts: see reward_metrics.py."""
    scores = iter(score_ids(model, [ids for prompt in prompts for ids in prompt.answers]))
    return reward_report(prompts, [[next(scores) for _ in prompt.answers] for prompt in prompts])


def describe(config: RewardConfig) -> dict[str, object]:
    """Return what a dry run prints: parameters, prompts, pairs, steps, tokens."""
    encoder = Encoder(load_tokenizer(config.model))
    plan = make_plan(config, encoder)
    return {
        "parameters": _start(config, encoder).num_parameters(),
        "prompts": len(plan.train),
        "pairs": sum(prompt.pairs for prompt in plan.train),
        "steps": config.epochs * plan.steps_per_epoch,
        "tokens_per_epoch": plan.tokens,
        "held_out_prompts": len(plan.held_out),
        "dropped_rankings": as_json(plan.dropped),
    }


def run_reward(config: RewardConfig, *, force: bool) -> None:
    """Train a reward model, going on from the run's newest step, and write it with its held-out figures."""
    refuse_finished(config.output / WEIGHTS, force=force)
    tokenizer = load_tokenizer(config.model)
    encoder = Encoder(tokenizer)
    parallel = Parallel()
    model = _start(config, encoder, config.lora)
    trained: nn.Module = model
    if config.lora is not None:
        trained = nn.ModuleList([add_adapter(model, config.lora, VALUE, seed=config.seed), model.score])
        trained.requires_grad_()
    parallel.place(model)
    torch.manual_seed(config.seed + parallel.rank * RANK_SEEDS)
    optimizers = Optimizers(trained, config.optimization)
    run = Run(config.runs / config.name, as_json(config), parallel, track=config.track)
    parts: dict[str, Part] = {"model": trained, "optimizers": optimizers}
    first_step = resume(run, parts)
    plan = make_plan(config, encoder)
    steps = config.epochs * plan.steps_per_epoch
    if plan.dropped != Dropped() and parallel.is_main:
        sys.stderr.write(
            f"left out: {plan.dropped.too_long} rankings over {config.max_tokens} tokens, "
            f"{plan.dropped.without_pair} of ties alone\n"
        )
    batches = plan.batches(seed=config.seed, micro_tokens=config.micro_tokens)
    train(
        model.train(),
        reward_loss(model, precision=config.precision),
        islice(batches, first_step, None),
        run,
        parts,
        optimizers,
        parallel,
        optimization=config.optimization,
        save_every=config.save_every,
        first_step=first_step,
        steps=steps,
    )
    weights = parallel.whole(model.state_dict())

    def finish() -> None:
        whole = _start(config, encoder).to(parallel.device)
        base = (
            {**whole.state_dict(), "score.weight": weights["score.weight"]} if is_quantized(model) else None
        )
        whole.load_state_dict(merged(model, weights, VALUE, base=base))
        centre(whole, read_demonstrations(config, encoder))
        report = judge(whole, plan.held_out)
        run.log({"step": steps, "held_out": report})
        keep = partial(save_adapter, model, weights, VALUE)
        export_reward_model(whole, tokenizer, config, steps=steps, report=report, keep_adapter=keep)

    parallel.on_main(finish)


def _start(config: RewardConfig, encoder: Encoder, lora: Lora | None = None) -> PreTrainedModel:
    """Return the model that training starts from; raises ConfigurationError where rankings do not fit its context."""
    model = new_reward_model(config.model, seed=config.seed, lora=lora)
    context = model.config.max_position_embeddings
    if config.max_tokens > context:
        raise ConfigurationError(
            f"max_tokens {config.max_tokens} is over the model's context of {context}; lower it"
        )
    model.config.pad_token_id = encoder.pad_id
    return model
