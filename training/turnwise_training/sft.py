"""Supervised fine-tuning on demonstrations: loss on the assistant's turns only, exactly packed."""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from turnwise_training.adapters import POLICY, add_adapter
from turnwise_training.batches import Rows, pack
from turnwise_training.chat import Encoded, Encoder, load_tokenizer
from turnwise_training.checkpoint import export_checkpoint
from turnwise_training.config import SFTConfig
from turnwise_training.data import Row, Text, read_source, split_source
from turnwise_training.errors import ConfigurationError, DataError
from turnwise_training.evaluate import held_out_losses
from turnwise_training.loop import Part, resume, row_batch, row_loss, train
from turnwise_training.models import load_model
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import RANK_SEEDS, Parallel
from turnwise_training.recipe import as_json
from turnwise_training.run import Run, refuse_finished
from turnwise_training.selection import build_selection


@dataclass(frozen=True)
class Plan:
    """What every epoch trains on: batches of short rows and batches of long rows."""

    groups: tuple[Rows, ...]
    """Rows of `seq_len` and rows of `long_seq_len`, whole batches of each."""
    batch_tokens: int
    dropped: int
    """Conversations longer than the longest row."""

    def batches(self, *, epochs: int, seed: int) -> Iterator[Rows]:
        """Yield every batch of every epoch; the order of rows and batches depends on the seed alone."""
        for epoch in range(epochs):
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            batches = [batch for rows in self.groups for batch in self._cut(rows, generator)]
            for index in torch.randperm(len(batches), generator=generator).tolist():
                yield batches[index]

    def _cut(self, rows: Rows, generator: torch.Generator) -> list[Rows]:
        size = self.batch_tokens // rows.ids.shape[1]
        order = torch.randperm(len(rows), generator=generator)
        return [rows.take(order[start : start + size]) for start in range(0, len(rows) - size + 1, size)]

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of an epoch; rows that fill no batch wait for another epoch's order."""
        return sum(len(rows) // (self.batch_tokens // rows.ids.shape[1]) for rows in self.groups)


def make_plan(config: SFTConfig, encoder: Encoder) -> Plan:
    """Read, encode and pack an epoch; raises DataError where a row has no token to train on."""
    encoded: list[Encoded] = []
    for name, count in config.rows.items():
        rows = _read(config, name)[0]
        if not rows:
            raise DataError(f"source {name!r} has no training rows")
        encoded += _pieces(list(islice(cycle(rows), count)), encoder, name=name, seq_len=config.seq_len)
    random.Random(config.seed).shuffle(encoded)
    pad_id = encoder.pad_id
    groups = []
    shortest = 0
    for seq_len in (config.seq_len, config.long_seq_len):
        fitting = [item for item in encoded if shortest < len(item.ids) <= seq_len]
        groups.append(pack(fitting, seq_len=seq_len, pad_id=pad_id))
        shortest = seq_len
    dropped = sum(len(item.ids) > config.long_seq_len for item in encoded)
    return Plan(tuple(rows for rows in groups if len(rows)), config.batch_tokens, dropped)


def _pieces(rows: list[Row], encoder: Encoder, *, name: str, seq_len: int) -> Iterator[Encoded]:
    """Yield encoded rows; running text is cut to `seq_len`, a conversation never is."""
    for row, item in zip(rows, encoder.encode(rows), strict=True):
        if not any(item.trained[1:]):
            raise DataError(f"{row.where or f'source {name!r}'}: no token to train on")
        starts = range(0, len(item.ids), seq_len) if isinstance(row, Text) else [0]
        length = seq_len if isinstance(row, Text) else len(item.ids)
        for start in starts:
            piece = Encoded(
                item.ids[start : start + length], item.trained[start : start + length], item.weight
            )
            if len(piece.ids) > 1:
                yield piece


def _read(config: SFTConfig, name: str) -> tuple[list[Row], list[Row]]:
    rows = read_source(config.data, name, seed=config.seed, drop_containing=config.drop_containing)
    return split_source(rows, seed=config.seed)


def describe(config: SFTConfig) -> dict[str, object]:
    """Return what a dry run prints: parameters, tokens, steps."""
    model = load_model(config.model)
    plan = make_plan(config, Encoder(load_tokenizer(config.model)))
    return {
        "parameters": model.num_parameters(),
        "steps": config.epochs * plan.steps_per_epoch,
        "tokens_per_epoch": sum(rows.ids.numel() for rows in plan.groups),
        "trained_tokens_per_epoch": sum(rows.trained_tokens for rows in plan.groups),
        "dropped_conversations": plan.dropped,
    }


def run_sft(config: SFTConfig, *, force: bool) -> None:
    """Fine-tune a checkpoint, going on from the run's newest step, and write the new checkpoint."""
    refuse_finished(config.output / "model.safetensors", force=force)
    encoder = Encoder(load_tokenizer(config.model))
    model = load_model(config.model, config.lora)
    trained = add_adapter(model, config.lora, POLICY, seed=config.seed) if config.lora else model
    parallel = Parallel()
    parallel.place(model)
    torch.manual_seed(config.seed + parallel.rank * RANK_SEEDS)
    optimizers = Optimizers(trained, config.optimization)
    run = Run(config.runs / config.name, as_json(config), parallel, track=config.track)
    plan = make_plan(config, encoder)
    if plan.steps_per_epoch == 0:
        raise ConfigurationError(
            f"the rows fill no batch of {config.batch_tokens} tokens; take more rows or lower it"
        )
    steps = config.epochs * plan.steps_per_epoch
    if plan.dropped:
        sys.stderr.write(
            f"{plan.dropped} conversations are over {config.long_seq_len} tokens and are left out\n"
        )
    held_out_rows = {name: _read(config, name)[1] for name in config.rows}
    selection = build_selection(
        config,
        model,
        trained,
        held_out_rows,
        encoder,
        parallel,
        steps_per_epoch=plan.steps_per_epoch,
    )
    parts: dict[str, Part] = {"model": trained, "optimizers": optimizers, "selection": selection}
    first_step = resume(run, parts)
    batches = islice(plan.batches(epochs=config.epochs, seed=config.seed), first_step, None)
    train(
        model,
        row_loss(model, compile=config.compile, precision=config.precision),
        (row_batch(rows, micro_tokens=config.micro_tokens) for rows in batches),
        run,
        parts,
        optimizers,
        parallel,
        optimization=config.optimization,
        save_every=config.save_every,
        first_step=first_step,
        steps=steps,
        after_step=selection.after_step,
    )
    selection.restore()
    held_out = held_out_losses(model, encoder, held_out_rows, tokens=config.eval_tokens)
    export_checkpoint(
        model,
        encoder,
        config.output,
        stage="sft",
        config=config,
        sources=config.rows,
        steps=steps,
        held_out=held_out,
        parent=config.model,
        parallel=parallel,
        facts=selection.facts,
    )
