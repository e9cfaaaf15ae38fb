"""Reads rows of text and conversations from JSON lines and splits them by group. It knows nothing of tokens."""

import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypedDict

import zstandard

from turnwise_training.errors import DataError

ROLES = ("system", "user", "assistant")
HELD_OUT_PERCENT = 2
SYNTHETIC_PREFIX = "synthetic"
"""Sources of this name are written by our own programs instead of being read from a file."""


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Text:
    """One document of running text."""

    text: str

    @property
    def group(self) -> str:
        return self.text


@dataclass(frozen=True)
class Conversation:
    """One dialogue; at least one message is the assistant's."""

    messages: tuple[Message, ...]

    @property
    def group(self) -> str:
        """Return what all conversations opened by the same user words share."""
        return next(m["content"] for m in self.messages if m["role"] == "user")


Row = Text | Conversation


def parse_row(value: object, where: str) -> Row:
    """Return the row a JSON value holds, or raise DataError that begins with `where`."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    if isinstance(value.get("text"), str):
        return Text(value["text"])
    if isinstance(value.get("messages"), list):
        return _parse_conversation(value["messages"], where)
    raise DataError(f"{where}: expected a string 'text' or a list 'messages', found keys {sorted(value)!r}")


def _parse_conversation(messages: list[object], where: str) -> Conversation:
    parsed: list[Message] = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"{where}: message {number} needs a 'role' of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{where}: message {number} needs a string 'content'")
        parsed.append({"role": message["role"], "content": message["content"]})
    roles = {message["role"] for message in parsed}
    if not roles >= {"user", "assistant"}:
        raise DataError(
            f"{where}: a conversation needs a user and an assistant message; its roles are {sorted(roles)}"
        )
    return Conversation(tuple(parsed))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a `.jsonl` or `.jsonl.zst` file in order.

    Raises DataError naming file and line for anything that is not UTF-8, JSON or a known row.
    """
    try:
        with path.open("rb") as file:
            yield from _parse_lines(_decompressed(path, file), path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; set `data` to the folder that holds it") from None
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: not readable as zstd ({error}); fetch the file again") from error


def _decompressed(path: Path, file: IO[bytes]) -> IO[bytes]:
    if path.suffix != ".zst":
        return file
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file), buffer_size=1 << 20)


def _parse_lines(lines: IO[bytes], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number}"
        try:
            value = json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{where}: {error}") from error
        yield parse_row(value, where)


def is_held_out(row: Row) -> bool:
    """Tell whether a row belongs to the held-out 2%; equal openings always fall on one side, in every source."""
    key = " ".join(row.group.lower().split())
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % 100 < HELD_OUT_PERCENT


def read_source(data: Path, name: str, *, seed: int, drop_containing: Sequence[str] = ()) -> list[Row]:
    """Return every row of source `name`: the file `name.jsonl.zst` under `data`, or a program-written source."""
    path = source_path(data, name)
    if path is None:
        from turnwise_training import synthetic

        return list(synthetic.write_rows(name, seed=seed))
    rows = read_rows(path)
    return [
        row
        for row in rows
        if not any(mark in content for content in contents(row) for mark in drop_containing)
    ]


def source_path(data: Path, name: str) -> Path | None:
    """Return the file of source `name`, or None if a program writes it."""
    return None if name.startswith(SYNTHETIC_PREFIX) else data / f"{name}.jsonl.zst"


def contents(row: Row) -> list[str]:
    """Return the texts of a row."""
    return [row.text] if isinstance(row, Text) else [message["content"] for message in row.messages]


def split_source(rows: list[Row], *, seed: int) -> tuple[list[Row], list[Row]]:
    """Return the training rows in a seeded order and the held-out rows in file order."""
    train = [row for row in rows if not is_held_out(row)]
    random.Random(seed).shuffle(train)
    return train, [row for row in rows if is_held_out(row)]
