"""The commands `turnwise-train data check` and `data convert`."""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from turnwise_training.data.census import Census
from turnwise_training.data.hygiene import PREFIX_CHARACTERS, cap_users, drop_shared_prefixes
from turnwise_training.data.personal import drop_personal
from turnwise_training.data.preferences import as_rankings
from turnwise_training.data.rows import Conversation, Prompt, Ranking, Row, Text, Vote
from turnwise_training.data.sources import Tally, read_rows
from turnwise_training.data.writer import write_rows
from turnwise_training.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from turnwise_training.chat import Encoder
    from turnwise_training.lengths import Lengths

app = typer.Typer(no_args_is_help=True, help="Look through files of rows, or rewrite them as native rows.")

TokenizerFolder = Annotated[
    Path | None, typer.Option("--tokenizer", help="A model directory: measure rows in its tokens.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Drop rows of more tokens, and count them.")]


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Files of rows in any format of docs/data-formats.md.")],
    tokenizer: TokenizerFolder = None,
    max_tokens: MaxTokens = None,
) -> None:
    """Print what files hold, what is dropped and why, and the first row with the words the loss falls on."""
    encoder = _load_encoder(tokenizer, max_tokens)
    failed = False
    for path in files:
        try:
            _check(path, encoder, max_tokens)
        except DataError as error:
            typer.echo(f"turnwise-train: {error}", err=True)
            failed = True
    if failed:
        raise typer.Exit(2)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file of rows in any format.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new .jsonl, .jsonl.zst or .jsonl.gz.")],
    tokenizer: TokenizerFolder = None,
    max_tokens: MaxTokens = None,
    shared_prefix: Annotated[
        int | None,
        typer.Option(min=1, help="Keep one row of those whose prompts share their first N characters."),
    ] = None,
    per_user: Annotated[int | None, typer.Option(min=1, help="Keep the first N rows of a user.")] = None,
    drop_personal_data: Annotated[
        bool, typer.Option("--drop-personal-data", help="Drop rows with e-mail, phone or card numbers.")
    ] = False,
    votes_as_rankings: Annotated[
        bool, typer.Option("--votes-as-rankings", help="Rank liked answers over disliked ones of one prompt.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
) -> None:
    """Write a file's rows as native rows: all of them or, on an error, nothing."""
    encoder = _load_encoder(tokenizer, max_tokens)
    tally = Tally()
    rows: Iterable[Row] = read_rows(source, tally=tally)
    if votes_as_rankings:
        rows = as_rankings(rows)
    if drop_personal_data:
        rows = drop_personal(rows)
    if shared_prefix is not None:
        rows = drop_shared_prefixes(rows, characters=shared_prefix)
    if per_user is not None:
        rows = cap_users(rows, most=per_user)
    if encoder is not None:
        rows = _lengths(encoder, max_tokens).measure(rows)
    written = write_rows(rows, output, force=force)
    read = tally.formats.total()
    typer.echo(f"{output}: {written:,} rows of {read:,} ({_counts(tally.formats)}){_dropped(tally.dropped)}")


def _load_encoder(tokenizer: Path | None, max_tokens: int | None) -> "Encoder | None":
    if tokenizer is None:
        if max_tokens is not None:
            raise ConfigurationError(
                "--max-tokens needs --tokenizer, the model directory to count tokens with"
            )
        return None
    from turnwise_training.chat import Encoder, load_tokenizer

    return Encoder(load_tokenizer(tokenizer))


def _lengths(encoder: "Encoder", max_tokens: int | None) -> "Lengths":
    from turnwise_training.lengths import Lengths

    return Lengths(encoder, max_tokens)


def _check(path: Path, encoder: "Encoder | None", max_tokens: int | None) -> None:
    tally, census = Tally(), Census()
    rows = census.count(read_rows(path, tally=tally))
    lengths = None if encoder is None else _lengths(encoder, max_tokens)
    deque(rows if lengths is None else lengths.measure(rows), maxlen=0)
    too_long = 0 if lengths is None else lengths.dropped
    dropped = tally.dropped + Counter({f"over {max_tokens} tokens": too_long})
    typer.echo(f"{path}: {census.kinds.total() - too_long:,} rows{_dropped(dropped)}")
    for name, fact in (*_facts(tally, census), *(_token_facts(lengths) if lengths else ())):
        typer.echo(f"  {name:<10} {fact}")
    if census.first is not None:
        typer.echo(f"  first row, the loss on what is {'green' if _is_terminal() else 'in [[brackets]]'}:")
        typer.echo(_show_first(census.first, lengths))


def _facts(tally: Tally, census: Census) -> Iterator[tuple[str, str]]:
    yield "kinds", _counts(census.kinds)
    yield "formats", _counts(tally.formats)
    yield "duplicates", f"{census.duplicates:,} rows equal an earlier one"
    yield (
        "prompts",
        f"{census.shared_prompts:,} more begin with the same {PREFIX_CHARACTERS} characters as an earlier one",
    )
    if census.users:
        ((_, most),) = census.users.most_common(1)
        yield "users", f"{len(census.users):,}, the busiest with {most:,} rows"
    if census.pairs:
        sizes = ", ".join(f"{count:,} of {size}" for size, count in sorted(census.completions.items()))
        yield "answers", f"rankings: {sizes}; {census.pairs:,} pairs in all"
    if census.personal:
        yield "personal", f"rows that seem to hold: {_counts(census.personal)}"


def _token_facts(lengths: "Lengths") -> Iterator[tuple[str, str]]:
    ordered = sorted(lengths.lengths)
    if ordered:
        yield "tokens", f"{lengths.tokens:,}, the loss on {lengths.trained:,}"
        half, most, longest = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100], ordered[-1]
        yield (
            "row",
            f"{fmean(ordered):.0f} tokens on average; half up to {half}, 95% up to {most}, all up to {longest}",
        )


def _show_first(row: Row, lengths: "Lengths | None") -> str:
    """Return the row as the model would see it or, without a tokenizer, its messages."""
    if lengths is not None and lengths.first is not None:
        from turnwise_training.lengths import show_mask

        return show_mask(lengths.first, lengths.encoder, mark=_mark)
    if isinstance(row, Text):
        return _mark(row.text)
    if isinstance(row, Prompt):
        return _show_messages(Conversation(row.prompt))
    if isinstance(row, Ranking):
        return "\n".join(map(_show_messages, row.conversations))
    return _show_messages(row.conversation if isinstance(row, Vote) else row)


def _show_messages(row: Conversation) -> str:
    return "\n".join(
        f"{message['role']}: {_mark(message['content']) if row.trains(number) else message['content']}"
        for number, message in enumerate(row.messages)
    )


def _mark(text: str) -> str:
    return typer.style(text, fg="green") if _is_terminal() else f"[[{text}]]"


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _counts(counter: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common() if count)


def _dropped(reasons: Counter[str]) -> str:
    return f"; dropped {reasons.total():,}: {_counts(reasons)}" if reasons.total() else ""
