"""Shows the figures of `compare` as Markdown: two tables and a few sentences, and never a text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from turnwise_training.safety.compare import ENOUGH_SAFE_SOURCES

_Figures = Mapping[str, Any]


def comparison_table(figures: _Figures) -> str:
    """Return shares by source and by category, then what each column comes to."""
    sources, columns = figures["sources"], figures["columns"]
    wordy = [name for name, each in columns.items() if each["has_words"]]
    heads = [*columns, *(f"{name}, in words only" for name in wordy)]
    lines = [
        *_table(["source", "what", "n", *heads], [[*_named(each), *_cells(each, wordy)] for each in sources]),
        "",
        *_table(
            ["harmful, by category", "n", *heads],
            [[each["category"], str(each["n"]), *_cells(each, wordy)] for each in figures["categories"]],
        ),
    ]
    for name, column in columns.items():
        lines += _sentences(name, column)
    safe = len({each["source"] for each in sources if not each["unsafe"]})
    if safe < ENOUGH_SAFE_SOURCES:
        lines.append(
            f"\nThese files hold {safe} harmless sources. Recall says little without false refusals on five or more: "
            "ordinary instructions, chat, knowledge, code, and alarming but harmless questions."
        )
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def _named(each: _Figures) -> list[str]:
    what = f"{'harmful' if each['unsafe'] else 'harmless'}, {each['kind'].replace('_', ' ')}"
    return [each["source"], what, str(each["n"])]


def _cells(each: _Figures, wordy: Sequence[str]) -> list[str]:
    shares = each["shares"]
    return [*map(_shown, shares.values()), *(str(shares[name]["soft"]) for name in wordy)]


def _shown(share: _Figures) -> str:
    if share["rate"] is None:
        return "none here"
    low, high = share["wilson95"]
    return f"{share['rate']:.1%} [{low:.1%}, {high:.1%}]"


def _sentences(name: str, column: _Figures) -> Iterator[str]:
    worst = [
        f"{_shown(each)} of harmless ones in {each['source']}, the worst {kind.replace('_', ' ')} source"
        for kind, each in column["worst_false_refusals"].items()
    ]
    recall = f"The {name} refuses {_shown(column['recall_of_requests'])} of harmful requests"
    yield (
        "\n"
        + "; ".join([recall, *worst])
        + f". Errors: {column['errors']}, unchecked: {column['unchecked']}."
    )
    if column["has_words"]:
        harmful, harmless = _stages(column["harmful_refused_at"]), _stages(column["harmless_refused_at"])
        yield f"Where it refused: harmful texts {harmful}, harmless ones {harmless}."
    for kind in ("requests", "content"):
        if (found := column[kind]) is not None:
            low, high = found["bootstrap95"]
            yield (
                f"PR-AUC on {kind}: {found['pr_auc']:.3f} [{low:.3f}, {high:.3f}] at a base rate of "
                f"{found['base_rate']:.3f} (n = {found['n']}), {found['pr_auc_at_base_rate_0.3']:.3f} thinned to 0.3."
            )


def _stages(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{counts.get(stage, 0)} by {stage}" for stage in ("input", "output"))
