"""Pretraining: every token of running text and of dialogues, in phases of growing row length."""

from collections.abc import Iterator
from dataclasses import dataclass

from turnwise_training.batches import Rows
from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.checkpoint import export_checkpoint
from turnwise_training.config import Phase, PretrainConfig
from turnwise_training.data import Row, read_source, split_source
from turnwise_training.errors import ConfigurationError
from turnwise_training.evaluate import held_out_losses
from turnwise_training.loop import Part, resume, row_batch, row_loss, train
from turnwise_training.mixture import mix_rows
from turnwise_training.models import new_model
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import Parallel
from turnwise_training.recipe import as_json
from turnwise_training.run import Run, refuse_finished


@dataclass(frozen=True)
class Stretch:
    """A phase in steps: it ends before step `end`."""

    phase: Phase
    number: int
    start: int
    end: int


def plan(config: PretrainConfig) -> list[Stretch]:
    """Return the phases laid out over all steps; raises ConfigurationError for a phase that cannot be run."""
    for phase in config.phases:
        if phase.mix not in config.mixes:
            raise ConfigurationError(f"phase mix {phase.mix!r} is none of mixes {sorted(config.mixes)!r}")
        if config.batch_tokens % phase.seq_len:
            raise ConfigurationError(
                f"batch_tokens {config.batch_tokens} is no multiple of seq_len {phase.seq_len}"
            )
    steps = config.tokens // config.batch_tokens
    if not steps or not config.phases:
        raise ConfigurationError(f"nothing to train: {config.tokens} tokens in {len(config.phases)} phases")
    whole = sum(phase.share for phase in config.phases)
    stretches: list[Stretch] = []
    share = 0.0
    for number, phase in enumerate(config.phases):
        start = stretches[-1].end if stretches else 0
        share += phase.share
        stretches.append(Stretch(phase, number, start, round(steps * share / whole)))
    return stretches


def describe(config: PretrainConfig) -> dict[str, object]:
    """Return what a dry run prints: parameters, tokens, steps."""
    tokenizer = load_tokenizer(config.tokenizer)
    model = new_model(config.model, tokenizer, seed=config.seed)
    stretches = plan(config)
    return {
        "parameters": model.num_parameters(),
        "steps": stretches[-1].end,
        "tokens": stretches[-1].end * config.batch_tokens,
        "phases": [
            {"seq_len": s.phase.seq_len, "mix": s.phase.mix, "steps": s.end - s.start} for s in stretches
        ],
    }


def run_pretrain(config: PretrainConfig, *, force: bool) -> None:
    """Train a model from random weights, going on from the run's newest step, and write the checkpoint."""
    refuse_finished(config.output / "model.safetensors", force=force)
    tokenizer = load_tokenizer(config.tokenizer)
    encoder = Encoder(tokenizer)
    model = new_model(config.model, tokenizer, seed=config.seed)
    parallel = Parallel()
    parallel.place(model)
    optimizers = Optimizers(model, config.optimization)
    run = Run(config.runs / config.name, as_json(config), parallel, track=config.track)
    parts: dict[str, Part] = {"model": model, "optimizers": optimizers}
    first_step = resume(run, parts)
    steps = plan(config)[-1].end
    train(
        model,
        row_loss(model, compile=config.compile, precision=config.precision),
        (row_batch(rows, micro_tokens=config.micro_tokens) for rows in _batches(config, encoder, first_step)),
        run,
        parts,
        optimizers,
        parallel,
        optimization=config.optimization,
        save_every=config.save_every,
        first_step=first_step,
        steps=steps,
    )
    sources = {name: _read_held_out(config, name) for mix in config.mixes.values() for name in mix}
    held_out = held_out_losses(model, encoder, sources, tokens=config.eval_tokens)
    export_checkpoint(
        model,
        encoder,
        config.output,
        stage="pretrain",
        config=config,
        sources=sources,
        steps=steps,
        held_out=held_out,
        parent=None,
        parallel=parallel,
    )


def _batches(config: PretrainConfig, encoder: Encoder, first_step: int) -> Iterator[Rows]:
    """Yield the batch of each step from `first_step`; it depends on the step and the seed only."""

    def read(name: str, seed: int) -> list[Row]:
        rows = read_source(config.data, name, seed=seed, drop_containing=config.drop_containing)
        return split_source(rows, seed=seed)[0]

    for stretch in plan(config):
        if stretch.end <= first_step:
            continue
        phase = stretch.phase
        size = config.batch_tokens // phase.seq_len
        count = (stretch.end - stretch.start) * size
        seed = config.seed * 1000 + stretch.number
        mix = config.mixes[phase.mix]
        rows = mix_rows(mix, count=count, seq_len=phase.seq_len, read=read, encoder=encoder, seed=seed)
        for step in range(max(first_step, stretch.start), stretch.end):
            start = (step - stretch.start) * size
            yield rows.take(slice(start, start + size))


def _read_held_out(config: PretrainConfig, name: str) -> list[Row]:
    rows = read_source(config.data, name, seed=config.seed, drop_containing=config.drop_containing)
    return split_source(rows, seed=config.seed)[1]
