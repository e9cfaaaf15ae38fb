"""The command line `turnwise-train`; heavy libraries are imported by the stage that needs them."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from turnwise_training.config import (
    EvaluateConfig,
    PPOConfig,
    PretrainConfig,
    RewardConfig,
    SampleConfig,
    SFTConfig,
    StageConfig,
    TokenizerConfig,
)
from turnwise_training.data_cli import app as data_app
from turnwise_training.errors import TrainingError
from turnwise_training.recipe import as_json, load_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a dialogue model, stage by stage.")
app.add_typer(data_app, name="data")

Recipe = Annotated[Path, typer.Argument(help="The recipe: a YAML file of this stage's settings.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the recipe's.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would run, with sizes and steps, and stop.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a finished output directory.")]


@app.command()
def tokenizer(
    recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
) -> None:
    """Train a byte-level BPE tokenizer with the chat template."""
    config = load_config(TokenizerConfig, recipe, overrides or [])
    if dry_run:
        return _print(config, {})
    from turnwise_training.tokenizer import run_tokenizer

    return run_tokenizer(config, force=force)


@app.command()
def pretrain(
    recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
) -> None:
    """Train a new model on running text and dialogues, every token."""
    config = load_config(PretrainConfig, recipe, overrides or [])
    from turnwise_training.pretrain import describe, run_pretrain

    return _print(config, describe(config)) if dry_run else run_pretrain(config, force=force)


@app.command()
def sft(recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False) -> None:
    """Fine-tune a model on demonstrations: loss on the assistant's turns only."""
    config = load_config(SFTConfig, recipe, overrides or [])
    from turnwise_training.sft import describe, run_sft

    return _print(config, describe(config)) if dry_run else run_sft(config, force=force)


@app.command()
def reward(
    recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
) -> None:
    """Train a reward model on rankings and comparisons: all answers to a prompt in one batch element."""
    config = load_config(RewardConfig, recipe, overrides or [])
    from turnwise_training.reward import describe, run_reward

    return _print(config, describe(config)) if dry_run else run_reward(config, force=force)


@app.command()
def ppo(recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False) -> None:
    """Train a fine-tuned model against its rewards by PPO, with the pretraining mix where the recipe has one."""
    config = load_config(PPOConfig, recipe, overrides or [])
    from turnwise_training.ppo_stage import describe, run_ppo

    return _print(config, describe(config)) if dry_run else run_ppo(config, force=force)


@app.command()
def sample(
    recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
) -> None:
    """Sample several answers to each prompt, as rows of rankings for people or a reward model to order."""
    config = load_config(SampleConfig, recipe, overrides or [])
    from turnwise_training.sample import describe, run_sample

    return _print(config, describe(config)) if dry_run else run_sample(config, force=force)


@app.command()
def evaluate(
    recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
) -> None:
    """Judge checkpoints: held-out loss, win rates, refusals, the answers; write evaluation.json."""
    config = load_config(EvaluateConfig, recipe, overrides or [])
    from turnwise_training.evaluate.command import describe, run_evaluate

    return _print(config, describe(config)) if dry_run else run_evaluate(config, force=force)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/NAME.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="evaluation.json, whose answers are shown as well.")
    ] = None,
) -> None:
    """Write report.html of a run: curves, calibration, answers, alarms and settings in one file."""
    from turnwise_training.report import write_report

    typer.echo(write_report(run, evaluation=evaluation))


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A finished model directory.")],
    notes: Annotated[
        Path | None, typer.Option(help="YAML with the card's words: title, sources, sections.")
    ] = None,
    behaviour: Annotated[Path | None, typer.Option(help="JSON of benchmarks/starter_behaviour.py.")] = None,
) -> None:
    """Write the model card of a directory anew from its training.json."""
    from turnwise_training.card import update_card

    update_card(folder, notes=notes, behaviour=behaviour)


def _print(config: StageConfig, facts: dict[str, object]) -> None:
    typer.echo(json.dumps({"config": as_json(config), **facts}, indent=2))


def _show_log() -> None:
    """Let the package's log reach the terminal; of several processes the first alone tells more than warnings."""
    logging.basicConfig(format="%(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("turnwise_training").setLevel(logging.INFO)


def main() -> None:
    """Run the command line; a known error is printed without a traceback and exits 2."""
    _show_log()
    try:
        app()
    except TrainingError as error:
        typer.echo(f"turnwise-train: {error}", err=True)
        sys.exit(2)
