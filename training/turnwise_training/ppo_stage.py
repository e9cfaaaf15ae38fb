"""The PPO stage: puts the learner together, runs its iterations, and writes the checkpoint."""

from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import AutoConfig, PreTrainedModel

from turnwise_training.actors import build_actors
from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.checkpoint import WEIGHTS, export_checkpoint
from turnwise_training.config import PPOConfig, RewardTerm
from turnwise_training.data import Conversation, Row, Text, read_source, split_source
from turnwise_training.errors import ConfigurationError, RunError
from turnwise_training.evaluate import held_out_losses
from turnwise_training.loop import resume
from turnwise_training.models import load_model
from turnwise_training.monitors import Alarms
from turnwise_training.parallel import RANK_SEEDS, Parallel
from turnwise_training.ppo import PPO
from turnwise_training.progress import Progress
from turnwise_training.prompts import EncodedPrompt, read_prompts
from turnwise_training.ptx import PretrainingMix
from turnwise_training.recipe import as_json
from turnwise_training.rewards import Reward, build_reward
from turnwise_training.rollout import RolloutEngine, build_engine, roll_out, rollout_key
from turnwise_training.run import Run, refuse_finished

SHOWN_PROMPTS = 4
"""Held-out prompts whose answers the log shows as the policy changes."""


def describe(config: PPOConfig) -> dict[str, object]:
    """Return what a dry run prints: prompts, episodes, optimizer steps, the most tokens."""
    check(config)
    prompts = _read_prompts(config, Encoder(load_tokenizer(config.model)), held_out=False)
    longest = _longest_row(config, prompts)
    return {
        "prompts": len(prompts),
        "episodes": config.iterations * config.batch,
        "optimizer_steps": config.iterations * config.inner_epochs * -(-config.batch // config.minibatch),
        "longest_row": longest,
        "tokens_at_most": config.iterations * config.batch * longest,
    }


def check(config: PPOConfig) -> None:
    """Raise ConfigurationError for settings that cannot be run together."""
    if not 0 < config.micro <= config.minibatch <= config.batch:
        raise ConfigurationError(
            f"micro {config.micro}, minibatch {config.minibatch} and batch {config.batch} do not fit into each other; "
            "make micro at least 1, minibatch at least micro and batch at least minibatch"
        )
    positive = {
        "iterations": config.iterations,
        "inner_epochs": config.inner_epochs,
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ConfigurationError(f"{name} is {value}; it must be over 0")
    if not config.rewards:
        raise ConfigurationError(
            "rewards is empty; name at least one term, such as {kind: model, source: DIRECTORY}"
        )
    if config.engine.kind == "vllm" and not config.engine.url:
        raise ConfigurationError(
            "engine.url is empty; set it to the vLLM server's, such as http://127.0.0.1:8000"
        )


def _longest_row(config: PPOConfig, prompts: Sequence[EncodedPrompt]) -> int:
    """Return the most tokens of a prompt and its answer; raises ConfigurationError where they are over the context."""
    longest = max(len(prompt.ids) for prompt in prompts) + config.max_new_tokens
    context: int = AutoConfig.from_pretrained(config.model).max_position_embeddings
    if longest > context:
        raise ConfigurationError(
            f"a prompt and its answer may have {longest} tokens and the model's context is {context}; lower"
            " max_prompt_tokens or max_new_tokens"
        )
    return longest


def run_ppo(config: PPOConfig, *, force: bool) -> None:
    """Train a policy against its rewards, going on from the run's newest step, and write the checkpoint.

    Raises RunError, with the state saved, where an alarm stops the run.
    """
    check(config)
    refuse_finished(config.output / WEIGHTS, force=force)
    parallel = Parallel()
    encoder = Encoder(load_tokenizer(config.model))
    prompts = _read_prompts(config, encoder, held_out=False)
    _longest_row(config, prompts)
    actors = build_actors(config, parallel)
    engine = build_engine(config, actors.language_model, encoder, parallel)
    learner = PPO(
        config,
        actors,
        engine,
        build_reward(config.rewards, encoder, parallel.device),
        encoder,
        parallel,
        prompts,
        ptx=_pretraining_mix(config, actors.language_model, encoder, parallel),
        held_out_reward=_held_out_reward(config, encoder, parallel),
    )
    torch.manual_seed(config.seed + parallel.rank * RANK_SEEDS)
    run = Run(config.runs / config.name, as_json(config), parallel, track=config.track)
    shown = _read_prompts(config, encoder, held_out=True)[:SHOWN_PROMPTS]
    _iterate(learner, run, lambda: _answers(config, engine, encoder, parallel, shown))
    learner.average.copy_to(actors.policy)
    _export(config, actors.language_model, encoder, parallel, last=run.last_line())


def _iterate(learner: PPO, run: Run, show: Callable[[], list[dict[str, object]]]) -> None:
    """Run every iteration that is left: log it, save it, ring its alarms."""
    config, parallel = learner.config, learner.parallel
    alarms = Alarms(kl_max=config.kl_max)
    parts = {**learner.parts(), "alarms": alarms}
    first = resume(run, parts)
    if first == 0:
        run.log({"step": 0, "answers": show()})
    progress = Progress(steps=config.iterations, timing=run.folder / "timing.jsonl")
    learner.phases = progress.phases
    for done in range(first + 1, config.iterations + 1):
        is_last = done == config.iterations
        figures, episodes = learner.iterate(done - 1)
        rung = alarms.check(figures)
        line = {"step": done, **figures, "alarms": [alarm.name for alarm in rung]}
        run.log(line | ({"answers": show()} if is_last or done % config.show_every == 0 else {}))
        if parallel.is_main:
            tokens = sum(len(episode.prompt_ids) + len(episode.sample.ids) for episode in episodes)
            progress.show(done, tokens=tokens, score=figures["score_mean"], kl=figures["kl_k1"])
            for alarm in rung:
                if alarm.is_new:
                    progress.say(f"alarm: {alarm.message}")
        stopping = [alarm for alarm in rung if alarm.stops]
        if is_last or stopping or done % config.save_every == 0:
            run.save(done, {name: part.state_dict() for name, part in parts.items()})
        if stopping:
            raise RunError(f"stopped at iteration {done}: {stopping[0].message}")


def _answers(
    config: PPOConfig,
    engine: RolloutEngine,
    encoder: Encoder,
    parallel: Parallel,
    prompts: Sequence[EncodedPrompt],
) -> list[dict[str, object]]:
    """Return the fixed prompts and what the policy answers to them now; their random numbers are always the same."""
    episodes = roll_out(
        engine,
        [(prompt, rollout_key(config.seed, -1, row)) for row, prompt in enumerate(prompts)],
        encoder,
        parallel,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
    )
    return [{"prompt": list(episode.prompt.prompt), "answer": episode.reply} for episode in episodes]


def _read_prompts(config: PPOConfig, encoder: Encoder, *, held_out: bool) -> list[EncodedPrompt]:
    return read_prompts(
        config.prompts,
        encoder,
        data=config.data,
        max_tokens=config.max_prompt_tokens,
        seed=config.seed,
        held_out=held_out,
        required=not held_out,
    )


def _pretraining_mix(
    config: PPOConfig, model: PreTrainedModel, encoder: Encoder, parallel: Parallel
) -> PretrainingMix | None:
    return None if config.ptx is None else PretrainingMix(config, config.ptx, model, encoder, parallel)


def _held_out_reward(config: PPOConfig, encoder: Encoder, parallel: Parallel) -> Reward | None:
    if config.held_out_reward is None:
        return None
    return build_reward((RewardTerm("model", str(config.held_out_reward)),), encoder, parallel.device)


def _export(
    config: PPOConfig,
    policy: PreTrainedModel,
    encoder: Encoder,
    parallel: Parallel,
    *,
    last: Mapping[str, object],
) -> None:
    """Write the averaged policy; its record holds the last iteration's figures and the held-out loss before PPO."""
    names = [*config.prompts, *(config.ptx.mix if config.ptx else ())]
    sources = {name: _held_out_rows(config, name) for name in names}
    reference = load_model(config.model)
    parallel.place(reference)
    export_checkpoint(
        policy,
        encoder,
        config.output,
        stage="ppo",
        config=config,
        sources=sources,
        steps=config.iterations,
        held_out=held_out_losses(policy, encoder, sources, tokens=config.eval_tokens),
        parent=config.model,
        parallel=parallel,
        facts={
            "held_out_before": held_out_losses(reference, encoder, sources, tokens=config.eval_tokens),
            "figures": {name: value for name, value in last.items() if isinstance(value, int | float)},
        },
    )


def _held_out_rows(config: PPOConfig, name: str) -> list[Row]:
    """Return the held-out rows of a source that a loss can be taken on."""
    rows = split_source(read_source(config.data, name, seed=config.seed), seed=config.seed)[1]
    return [row for row in rows if isinstance(row, Text | Conversation)]
