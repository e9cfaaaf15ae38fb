"""Writes the model card from training.json: figures from the run, words from the notes kept with the recipe."""

import json
from pathlib import Path
from typing import Any

import yaml

from turnwise_training.errors import RunError
from turnwise_training.evaluate.table import checkpoint_cells, markdown, reward_model_cells
from turnwise_training.policy import policy_words
from turnwise_training.run import write_durably

RECORD = "training.json"
PPO_FIGURES = (
    "score_mean",
    "held_out_score_mean",
    "kl_k1",
    "entropy",
    "length_mean",
    "unfinished",
    "distinct_2",
    "repetition_4",
    "score_length_correlation",
    "explained_variance",
)
Record = dict[str, Any]


def update_card(
    folder: Path, *, notes: Path | None, behaviour: Path | None, evaluation: Path | None = None
) -> None:
    """Add notes (YAML), the rates of a behaviour check and an evaluation to training.json; write the card anew."""
    record = _read(folder)
    if notes is not None:
        record["notes"] = yaml.safe_load(notes.read_text())
    if behaviour is not None:
        record["behaviour"] = json.loads(behaviour.read_text())
    if evaluation is not None:
        judged: Record = json.loads(evaluation.read_text())
        record["evaluation"] = {key: value for key, value in judged.items() if key != "examples"}
    write_durably(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    write_card(folder)


def write_card(folder: Path) -> None:
    """Write README.md from training.json; raises RunError if there is none."""
    record = _read(folder)
    notes = record.get("notes", {})
    parts = [
        _front_matter(notes, tag="text-classification" if "reward" in record else "text-generation"),
        f"# {notes.get('title', 'A Turnwise model')}\n\n{notes.get('summary', '')}".strip(),
        _model(record),
        _data(record, notes),
        _recipe(record),
        _policy(record),
        _held_out(record),
        _reward(record),
        _ppo(record),
        _evaluation(record),
        _behaviour(record, notes),
        *(f"## {heading}\n\n{text.strip()}" for heading, text in notes.get("sections", {}).items()),
    ]
    write_durably(folder / "README.md", ("\n\n".join(part for part in parts if part) + "\n").encode())


def _read(folder: Path) -> Record:
    try:
        record: Record = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        raise RunError(f"{folder} holds no {RECORD}; it is no finished checkpoint") from None
    return record


def _stages(record: Record) -> list[Record]:
    """Return the records of every stage, the first one first."""
    parent = (record.get("parent") or {}).get("training")
    return [*(_stages(parent) if parent else []), record]


def _labels(record: Record) -> list[str]:
    """Return a name for each stage: its kind, numbered from the second of a kind on."""
    kinds = [str(stage["stage"]) for stage in _stages(record)]
    before = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind} {count + 1}" if count else kind for kind, count in zip(kinds, before, strict=True)]


def _front_matter(notes: Record, *, tag: str) -> str:
    lines = {
        "library_name": "transformers",
        "pipeline_tag": tag,
        **notes.get("front_matter", {}),
    }
    return f"---\n{yaml.safe_dump(lines, sort_keys=True)}---"


def _model(record: Record) -> str:
    shape = _stages(record)[0]["config"]["model"]
    if not isinstance(shape, dict):
        return ""
    return (
        "## Model\n\n"
        f"Llama architecture, {record['parameters'] / 1e6:.1f}M parameters in bfloat16: {shape['layers']} layers of "
        f"{shape['hidden_size']}, {shape['heads']} query and {shape['kv_heads']} key-value heads, feed-forward "
        f"{shape['intermediate_size']}, tied embeddings, context {shape['context_length']} tokens."
    )


def _data(record: Record, notes: Record) -> str:
    described = notes.get("sources", {})
    stages = dict(zip(_labels(record), _stages(record), strict=True))
    used = {name for stage in stages.values() for name in _sources(stage)}
    rows = [
        f"| {name} | {described.get(name, {}).get('origin', '')} | {described.get(name, {}).get('licence', '')} | "
        f"{', '.join(label for label, stage in stages.items() if name in _sources(stage))} |"
        for name in sorted(used)
    ]
    table = "\n".join(["| source | from | licence | used in |", "|---|---|---|---|", *rows])
    return f"## Data\n\n{notes.get('data', '')}\n\n{table}"


def _sources(stage: Record) -> set[str]:
    config = stage["config"]
    kinds = ("rows", "rankings", "demonstrations", "prompts")
    return {name for mix in config.get("mixes", {}).values() for name in mix}.union(
        *(config.get(kind, {}) for kind in kinds)
    )


def _recipe(record: Record) -> str:
    lines = [
        f"- **{label}**: {stage['steps']} steps of {_batch(stage['config'])}, peak rates "
        f"{_rates(stage['config'])}, seed {stage['config']['seed']}"
        for label, stage in zip(_labels(record), _stages(record), strict=True)
    ]
    return "## Recipe\n\n" + "\n".join([*lines, "", "Every setting is in training.json."])


def _policy(record: Record) -> str:
    """Return which policies the stages were trained under; stages older than the policy file name none."""
    stages: dict[str, list[str]] = {}
    for label, stage in zip(_labels(record), _stages(record), strict=True):
        if policy := stage.get("policy"):
            stages.setdefault(policy_words(policy), []).append(label)
    lines = [f"- **{', '.join(labels)}**: {words}" for words, labels in stages.items()]
    return "\n".join(["## Policy\n", *lines]) if lines else ""


def _batch(config: Record) -> str:
    return f"{config['batch_tokens']:,} tokens" if "batch_tokens" in config else f"{config['batch']} prompts"


def _rates(config: Record) -> str:
    if "optimization" not in config:
        return f"{config['policy']['learning_rate']} (policy) and {config['value']['learning_rate']} (value)"
    rates = config["optimization"]
    return f"{rates['learning_rate']} (AdamW) and {rates['muon_learning_rate']} (Muon)"


def _held_out(record: Record) -> str:
    stages = zip(_labels(record), _stages(record), strict=True)
    held_out = {label: stage["held_out"] for label, stage in stages if stage["held_out"]}
    names = sorted({name for losses in held_out.values() for name in losses})
    header = " | ".join(f"{stage}, nats/token | nats/byte" for stage in held_out)
    rows = [
        f"| {name} | " + " | ".join(_losses(losses.get(name)) for losses in held_out.values()) + " |"
        for name in names
    ]
    table = "\n".join([f"| source | {header} |", "|---" * (1 + 2 * len(held_out)) + "|", *rows])
    return (
        "## Held-out loss\n\nOn rows no stage has seen (2% of each source, split by opening words). In "
        f"conversations the assistant's tokens count, in running text all.\n\n{table}"
    )


def _losses(losses: dict[str, float] | None) -> str:
    return f"{losses['nats_per_token']:.2f} | {losses['nats_per_byte']:.2f}" if losses else "- | -"


def _reward(record: Record) -> str:
    if "reward" not in record:
        return ""
    report = record["reward"]
    rows = [
        f"| {name} | {share['pairs']} | {share['share']:.1%} |"
        for name, share in {**report["by_source"], "all": report["accuracy"]}.items()
        if share["pairs"]
    ]
    table = "\n".join(["| source | pairs | ordered as the labelers did |", "|---|---|---|", *rows])
    error = report["calibration_error"]
    calibrated = "" if error is None else f" The expected calibration error is {error:.3f}."
    return (
        f"## Scores\n\nOn {report['prompts']} held-out prompts. The sigmoid of two scores' difference is the "
        f"probability that a labeler prefers the first answer.{calibrated}\n\n{table}"
    )


def _ppo(record: Record) -> str:
    figures = record.get("figures")
    if not figures:
        return ""
    rows = [f"| {name} | {figures[name]:.3f} |" for name in PPO_FIGURES if name in figures]
    table = "\n".join(["| figure | |", "|---|---|", *rows])
    before, after = record["held_out_before"], record["held_out"]
    rises = [
        f"{after[name]['nats_per_token'] - loss['nats_per_token']:+.3f} on {name}"
        for name, loss in before.items()
    ]
    tax = (
        f"\n\nHeld-out loss against the model before PPO, nats a token: {', '.join(rises)}." if rises else ""
    )
    return f"## PPO\n\nThe last iteration, on prompts it trained on; KL in nats an answer.\n\n{table}{tax}"


def _evaluation(record: Record) -> str:
    report = record.get("evaluation")
    if not report:
        return ""
    judges = ", ".join(f"`{term['source']}`" for term in report["config"]["judge"])
    judged = f" The judge is {judges}." if judges else ""
    tables = [markdown(cells) for cells in (checkpoint_cells(report), reward_model_cells(report)) if cells]
    return (
        "## Stage against stage\n\nOn held-out prompts, with 95% intervals; a tie counts as half a win."
        f"{judged}\n\n" + "\n\n".join(tables)
    )


def _behaviour(record: Record, notes: Record) -> str:
    rates = record.get("behaviour")
    if not rates:
        return ""
    rows = [
        f"| {row['probe']} | {row['sampled']:.0%} | {row['greedy']:.0%} | {row['count']} |"
        for row in rates["rates"]
    ]
    table = "\n".join(["| probe | as shipped | greedy | probes |", "|---|---|---|---|", *rows])
    return f"## Behaviour\n\n{notes.get('behaviour', '')}\n\n{table}"
