"""Where the files of an audit are: the one that is written, the older ones, the lock, and the end of a file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from turnwise_server.data_directory import data_directory
from turnwise_server.moderation.audit.chain import Link

DEFAULT_NAME: Final = "audit.jsonl"

_NAME_TIME: Final = "%Y%m%dT%H%M%SZ"
_TAIL_BYTES: Final = 2**16


def audit_path(path: str) -> Path:
    """Return the file that the policy's `audit.path` means; a relative one begins in the server's data directory."""
    return data_directory() / Path(path).expanduser()


def lock_path(path: Path) -> Path:
    """Return the file that is locked while an audit is written."""
    return path.with_name(f"{path.name}.lock")


@dataclass(frozen=True, slots=True, order=True)
class OldFile:
    """A file that is full, or old: nothing is written to it any more."""

    last_seq: int
    ended: datetime
    """When its last record was made."""
    path: Path


def old_path(path: Path, last: Link) -> Path:
    """Return the name under which a file is put away whose last record is `last`."""
    ended = datetime.fromisoformat(last.ts).astimezone(UTC).strftime(_NAME_TIME)
    return path.with_name(f"{path.stem}-{ended}-{last.seq}{path.suffix}")


def old_files(path: Path) -> list[OldFile]:
    """Return the files that were put away, the oldest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z)-(\d+){re.escape(path.suffix)}")
    found: list[OldFile] = []
    for file in path.parent.iterdir():
        if match := pattern.fullmatch(file.name):
            ended = datetime.strptime(match[1], _NAME_TIME).replace(tzinfo=UTC)
            found.append(OldFile(int(match[2]), ended, file))
    return sorted(found)


def read_tail(file: int) -> tuple[bytes | None, bytes]:
    """Return the last whole line of an open file, None if it has none, and what stands behind it."""
    size = os.fstat(file).st_size
    length = _TAIL_BYTES
    while True:
        length = min(length, size)
        *lines, rest = os.pread(file, length, size - length).split(b"\n")
        if len(lines) > 1 or length == size:
            return (lines[-1] if lines else None), rest
        length *= 4
