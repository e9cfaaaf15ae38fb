"""The command line `turnwise-train`; heavy libraries are imported by the stage that needs them."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer
from typer.core import TyperGroup

from turnwise_training.config import LadderConfig
from turnwise_training.data_cli import app as data_app
from turnwise_training.errors import TrainingError
from turnwise_training.recipe import as_json, load_config
from turnwise_training.stages import STAGES

FIRST_SPEAKS_S = 5.0
"""How long other processes hold back an error that the first one may have too; its end ends them."""


class RecipeByDefault(TyperGroup):
    """A group whose first argument may be a recipe: `evaluate RECIPE` means `evaluate recipe RECIPE`."""

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """Put `recipe` before arguments that begin with no command's name."""
        named = not args or args[0] in {*self.commands, "--help"}
        return super().parse_args(cast("typer.Context", ctx), args if named else ["recipe", *args])


app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a dialogue model, stage by stage.")
evaluate_app = typer.Typer(
    no_args_is_help=True, cls=RecipeByDefault, help="Judge checkpoints by a recipe, or a safety detector."
)
app.add_typer(data_app, name="data")
app.add_typer(evaluate_app, name="evaluate")

Recipe = Annotated[Path, typer.Argument(help="The recipe: a YAML file of this stage's settings.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the recipe's.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would run, with sizes and steps, and stop.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a finished output directory.")]


def _stage_command(name: str, text: str, *, group: typer.Typer = app, called: str | None = None) -> None:
    """Add the command of a stage; all of them take a recipe, overrides, --dry-run and --force."""
    stage = STAGES[name]

    def command(
        recipe: Recipe, overrides: Overrides = None, dry_run: DryRun = False, force: Force = False
    ) -> None:
        config = stage.load(recipe, overrides or [])
        if dry_run:
            typer.echo(json.dumps({"config": as_json(config), **stage.describe(config)}, indent=2))
        else:
            stage.run(config, force=force)

    group.command(called or name, help=text)(command)


_stage_command("tokenizer", "Train a byte-level BPE tokenizer with the chat template.")
_stage_command("pretrain", "Train a new model on running text and dialogues, every token.")
_stage_command("constitution", "Write demonstrations and preferences that teach a policy's rules.")
_stage_command("sft", "Fine-tune a model on demonstrations: loss on the assistant's turns only.")
_stage_command("sample", "Sample several answers to each prompt, for people or a reward to rank.")
_stage_command("reward", "Train a reward model on rankings, all answers to a prompt in one batch element.")
_stage_command("ppo", "Train a fine-tuned model against its rewards by PPO, with a pretraining mix if named.")
_stage_command(
    "evaluate",
    "Judge checkpoints: held-out loss, win rates, refusals; write evaluation.json.",
    group=evaluate_app,
    called="recipe",
)


@evaluate_app.command("safety")
def evaluate_safety(
    files: Annotated[list[Path], typer.Argument(help="Rows with prompt, label, category, source, license.")],
    server: Annotated[
        str | None, typer.Option(help="A running server to measure, such as http://127.0.0.1:8000/v1.")
    ] = None,
    alone_server: Annotated[
        str | None, typer.Option(help="The same server started with --unsafe-no-classifier: the model alone.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask for; else the first one listed.")
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(help="A detector's directory; else the server's /v1/moderations, else models/safety."),
    ] = None,
    each: Annotated[int | None, typer.Option(min=1, help="Rows of a source and class at most.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
) -> None:
    """Print what is refused of harmful and harmless texts, by source and category, with intervals.

    A server, its model alone and a detector stand side by side.
    """
    from turnwise_training.safety.asking import MeasuredServer
    from turnwise_training.safety.evaluate import evaluate_files

    typer.echo(
        evaluate_files(
            files,
            detector=detector,
            server=MeasuredServer(server, model=model) if server else None,
            alone=MeasuredServer(alone_server, model=model) if alone_server else None,
            each=each,
            output=output,
        )
    )


@app.command()
def ladder(
    recipe: Annotated[Path, typer.Argument(help="A YAML file that names stages and their recipes.")],
    dry_run: DryRun = False,
) -> None:
    """Run several stages in order, rounds of sample, reward and PPO included; finished ones are passed over."""
    from turnwise_training.ladder import climb, plan

    config = load_config(LadderConfig, recipe, [])
    if not dry_run:
        return climb(config, recipe.parent)
    for planned in plan(config, recipe.parent):
        typer.echo(f"round {planned.round}: {planned.stage.name} -> {planned.config.output}")
    return None


@app.command()
def safety(
    recipe: Recipe,
    overrides: Overrides = None,
    licences: Annotated[
        str, typer.Option(help="`permissive` for weights that ship; `all` reads every row, for experiments.")
    ] = "permissive",
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Train the detector of harmful messages, choose its thresholds and measure it on sources held out whole."""
    from turnwise_training.safety.config import SafetyConfig
    from turnwise_training.safety.train import describe, run_safety

    config = load_config(SafetyConfig, recipe, [*(overrides or []), f"licences={licences}"])
    if dry_run:
        typer.echo(json.dumps({"config": as_json(config), **describe(config)}, indent=2))
    else:
        run_safety(config, force=force)


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
    evaluation: Annotated[Path | None, typer.Option(help="JSON of `turnwise-train evaluate`.")] = None,
) -> None:
    """Write the model card of a directory anew from its training.json."""
    from turnwise_training.card import update_card

    update_card(folder, notes=notes, behaviour=behaviour, evaluation=evaluation)


def _show_log() -> None:
    """Let the package's log reach the terminal; of several processes the first alone tells more than warnings."""
    logging.basicConfig(format="%(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("turnwise_training").setLevel(logging.INFO)


def main() -> None:
    """Run the command line; a known error, or a file's, is printed without a traceback, by one process, and exits 2."""
    # oneDNN keeps compiled kernels for 1,024 shapes; rows of every length then cost gigabytes (docs/lab-log.md).
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    _show_log()
    try:
        app()
    except TrainingError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    finally:
        _leave_group()


def _fail(reason: str) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        time.sleep(FIRST_SPEAKS_S)
    typer.echo(f"turnwise-train: {reason}", err=True)
    sys.exit(2)


def _leave_group() -> None:
    """Part from the other processes in order: gloo's threads may abort a process that just ends."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
