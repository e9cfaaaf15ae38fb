"""Shows the figures of evaluation.json as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = Mapping[str, Any]
Cells = dict[str, dict[str, str]]
"""For each column, what stands in the rows it has."""


def print_tables(report: Figures) -> None:
    """Print one table of the checkpoints and one of the reward models, where there are any."""
    console = Console()
    for cells in (checkpoint_cells(report), reward_model_cells(report)):
        if labels := row_labels(cells):
            table = Table("", *cells)
            for label in labels:
                table.add_row(label, *(column.get(label, "-") for column in cells.values()))
            console.print(table)


def markdown(cells: Cells) -> str:
    """Return the cells as a table of Markdown."""
    rows = [[label, *(column.get(label, "-") for column in cells.values())] for label in row_labels(cells)]
    lines = [["", *cells], ["---"] * (1 + len(cells)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row_labels(cells: Cells) -> list[str]:
    """Return every row that a column has, in the order of the longest column."""
    columns = sorted(cells.values(), key=len, reverse=True)
    return list(dict.fromkeys(label for column in columns for label in column))


def checkpoint_cells(report: Figures) -> Cells:
    """Return a column for each checkpoint."""
    return {name: _checkpoint(found, report["against"]) for name, found in report["checkpoints"].items()}


def reward_model_cells(report: Figures) -> Cells:
    """Return a column for each reward model."""
    return {
        name: {
            "held-out prompts": str(found["prompts"]),
            **_shown({"pairs ordered right": found["accuracy"]["share"]}, "{:.1%}"),
            **_shown({"calibration error": found["calibration_error"]}, "{:.3f}"),
        }
        for name, found in report["reward_models"].items()
    }


def _checkpoint(found: Figures, against: str) -> dict[str, str]:
    preferred = found.get("preferred", {})
    refusals = found["refusals"]
    rates = {
        f"preferred to {against}": preferred.get("win_rate"),
        "the same at equal length": preferred.get("length_controlled"),
        "refuses harmful prompts": refusals.get("harmful"),
        "refuses harmless prompts": refusals.get("harmless"),
    }
    shares = {
        "answers cut off": found.get("unfinished"),
        "distinct words": found.get("distinct_1"),
        "distinct pairs of words": found.get("distinct_2"),
        "repeated 4-grams": found.get("repetition_4"),
    }
    losses = {
        f"loss on {name}, nats/token": loss["nats_per_token"] for name, loss in found["held_out"].items()
    }
    return {
        **{label: interval(rate) for label, rate in rates.items() if rate is not None},
        **_shown({f"KL from {against}, nats an answer": found.get("kl")}, "{:.2f}"),
        **_shown({"mean score": found.get("score_mean")}, "{:.3f}"),
        **_shown({"words an answer": found.get("words_mean")}, "{:.1f}"),
        **_shown(shares, "{:.1%}"),
        **_shown({**losses, "alignment tax, nats/token": found.get("alignment_tax")}, "{:.3f}"),
    }


def _shown(figures: Mapping[str, float | None], form: str) -> dict[str, str]:
    return {label: form.format(value) for label, value in figures.items() if value is not None}


def interval(found: Mapping[str, float]) -> str:
    """Return a rate with its 95% interval."""
    return f"{found['rate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
