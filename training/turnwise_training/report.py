"""Writes report.html of a run: one file without scripts or outside parts, made from what the run's folder holds."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from turnwise_training.charts import Points, calibration_chart, line_chart
from turnwise_training.errors import RunError
from turnwise_training.evaluate.table import checkpoint_cells, reward_model_cells, row_labels
from turnwise_training.monitors import Alarms
from turnwise_training.progress import duration
from turnwise_training.run import write_durably

Line = dict[str, Any]

CURVES = {
    "Loss": ("loss",),
    "Score": ("score_mean", "held_out_score_mean"),
    "Divergence from the reference, nats an answer": ("kl_k1", "kl_k3"),
    "Length of an answer, tokens": ("length_mean",),
    "Entropy, nats a token": ("entropy",),
    "Share of answers": ("unfinished", "list_share"),
    "Repetition and variety": ("repetition_4", "distinct_1", "distinct_2"),
    "Correlation of score and length": ("score_length_correlation",),
    "Variance the value function explains": ("explained_variance",),
    "Clipped tokens, share": ("clip_fraction",),
    "Largest ratio": ("ratio_max",),
    "Gradient norms": ("grad_norm", "value_grad_norm", "ptx_grad_norm"),
    "Loss on the pretraining mix, nats a token": ("ptx_nll",),
}
"""Figures that are drawn together, and what the drawing is called; any other figure gets a drawing of its own."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its name and the names of its curves."""

    title: str
    svg: Markup
    names: Sequence[str] = ()


def write_report(folder: Path, *, evaluation: Path | None) -> Path:
    """Write the report and return its path; raises RunError where the folder holds no run."""
    lines = _read_lines(folder / "log.jsonl")
    if not lines:
        raise RunError(f"{folder} holds no log.jsonl with a line; name a folder such as runs/NAME")
    config = json.loads((folder / "config.json").read_text())
    judged = json.loads(evaluation.read_text()) if evaluation is not None else None
    held_out = next((line["held_out"] for line in lines if "held_out" in line), None)
    # Everything is escaped but the drawings, which are Markup.
    environment = Environment(
        loader=PackageLoader("turnwise_training", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        name=folder.name,
        tiles=_tiles(lines, _read_lines(folder / "timing.jsonl")),
        alarms=_alarms(lines, config),
        charts=_charts(lines),
        reward=held_out,
        calibration=calibration_chart(held_out["calibration"]) if held_out else None,
        answers=_answers(lines),
        tables=_tables(judged),
        examples=judged["examples"] if judged else [],
        phases=_phases(_read_lines(folder / "timing.jsonl")),
        settings=_flat(config),
    )
    path = folder / "report.html"
    write_durably(path, page.encode())
    return path


def _read_lines(path: Path) -> list[Line]:
    """Return the whole lines of a file that may be growing; none where there is no file."""
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def series(lines: Sequence[Line], name: str, *, by: str = "step") -> Points:
    """Return a figure of the log by step, or by another figure; what is no finite number is left out."""
    return [
        (line[by], line[name])
        for line in lines
        if all(isinstance(line.get(key), int | float) and math.isfinite(line[key]) for key in (by, name))
    ]


def _charts(lines: Sequence[Line]) -> list[Chart]:
    numbers = {name: None for line in lines for name, value in line.items() if isinstance(value, int | float)}
    known = {name for names in CURVES.values() for name in names}
    rest = {name: (name,) for name in numbers if name not in known and name != "step"}
    charts = []
    for title, names in {**CURVES, **rest}.items():
        curves = {name: curve for name in names if len(curve := series(lines, name)) > 1}
        varies = len({value for curve in curves.values() for _, value in curve}) > 1
        if curves and (varies or title in CURVES):
            charts.append(Chart(title, line_chart(curves, label=title, x_label="step"), list(curves)))
    return [*_frontier(lines), *charts]


def _frontier(lines: Sequence[Line]) -> list[Chart]:
    """Return the score against the divergence it was bought with."""
    title = "Score against divergence"
    curves = {
        name: curve
        for name in ("score_mean", "held_out_score_mean")
        if (curve := series(lines, name, by="kl_k1"))
    }
    if not curves:
        return []
    drawn = line_chart(curves, label=title, x_label="kl_k1, nats an answer", connected=False)
    return [Chart(title, drawn, list(curves))]


def _tiles(lines: Sequence[Line], timing: Sequence[Line]) -> list[tuple[str, str]]:
    """Return the few figures that stand at the top."""
    tiles = [("steps", str(lines[-1]["step"]))]
    for label, name in {
        "loss": "loss",
        "score": "score_mean",
        "KL": "kl_k1",
        "length": "length_mean",
    }.items():
        if curve := series(lines, name):
            tiles.append((label, f"{curve[0][1]:.3g} \u2192 {curve[-1][1]:.3g}"))
    if timing:
        tiles.append(("time", duration(round(sum(line["seconds"] for line in timing)))))
        tiles.append(("tokens/s", f"{fmean(line['tokens_per_s'] for line in timing):,.0f}"))
        tiles += [(f"peak {name}", f"{size / 1e9:.1f} GB") for name, size in timing[-1]["peak_bytes"].items()]
    return tiles


def _alarms(lines: Sequence[Line], config: Mapping[str, Any]) -> list[Line]:
    """Return each alarm that rang, what it said first, and on how many steps, by watching the log again."""
    watched = [line for line in lines if "kl_k1" in line]
    alarms = Alarms(kl_max=config["kl_max"]) if watched else None
    found: dict[str, Line] = {}
    for line in watched:
        for alarm in alarms.check(line) if alarms else ():
            first = {"name": alarm.name, "first": line["step"], "message": alarm.message, "steps": 0}
            entry = found.setdefault(alarm.name, first)
            entry["steps"] += 1
            entry["last"] = line["step"]
    return list(found.values())


def _answers(lines: Sequence[Line]) -> list[dict[str, object]]:
    """Return the fixed prompts with the first and the last answer the log holds."""
    shown = [line for line in lines if "answers" in line]
    if len(shown) < 2:
        return []
    first, last = shown[0], shown[-1]
    return [
        {
            "prompt": before["prompt"],
            "answers": {f"step {first['step']}": before["answer"], f"step {last['step']}": after["answer"]},
        }
        for before, after in zip(first["answers"], last["answers"], strict=True)
    ]


def _tables(judged: Line | None) -> list[dict[str, object]]:
    """Return the tables of evaluation.json."""
    if judged is None:
        return []
    cells = [checkpoint_cells(judged), reward_model_cells(judged)]
    return [{"columns": each, "labels": row_labels(each)} for each in cells if each]


def _phases(timing: Sequence[Line]) -> list[tuple[str, float, float]]:
    """Return the name, the seconds and the tokens/s of each phase, over all steps."""
    seconds: defaultdict[str, float] = defaultdict(float)
    tokens: defaultdict[str, float] = defaultdict(float)
    for line in timing:
        for name, facts in line["phases"].items():
            seconds[name] += facts["seconds"]
            tokens[name] += facts.get("tokens_per_s", 0.0) * facts["seconds"]
    return [(name, spent, tokens[name] / spent if spent > 0 else 0.0) for name, spent in seconds.items()]


def _flat(value: object, at: str = "") -> list[tuple[str, str]]:
    """Return every setting as (dotted key, value)."""
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in _flat(item, f"{at}.{key}" if at else key)]
    return [(at, json.dumps(value) if not isinstance(value, str) else value)]
