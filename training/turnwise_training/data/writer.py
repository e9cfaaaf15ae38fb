"""Writes rows as native JSON lines: the whole file or none of it."""

import gzip
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import zstandard

from turnwise_training.data.native import to_json
from turnwise_training.data.rows import Row
from turnwise_training.errors import DataError, RunError


def write_rows(rows: Iterable[Row], path: Path, *, force: bool) -> int:
    """Write rows beside `path` and rename when all are on disk; return how many there were.

    Raises RunError if the file exists and `force` is not set, or if its name is not one of WRITERS; DataError if
    there is no row to write.
    """
    suffix = next((suffix for suffix in WRITERS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise RunError(f"{path}: the name must end in one of {', '.join(WRITERS)}")
    if path.exists() and not force:
        raise RunError(f"{path} exists; choose another name or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".tmp-{path.name}")
    try:
        with partial.open("wb") as file:
            count = WRITERS[suffix](rows, file)
            file.flush()
            os.fsync(file.fileno())
        if not count:
            raise DataError(f"no rows are left to write to {path}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write_plain(rows: Iterable[Row], file: IO[bytes]) -> int:
    return _write_lines(rows, file.write)


def _write_zstd(rows: Iterable[Row], file: IO[bytes]) -> int:
    with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
        return _write_lines(rows, stream.write)


def _write_gzip(rows: Iterable[Row], file: IO[bytes]) -> int:
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as stream:
        return _write_lines(rows, stream.write)


def _write_lines(rows: Iterable[Row], write: Callable[[bytes], int]) -> int:
    count = 0
    for row in rows:
        # A reward function's column may be a date or the like, which JSON has no word for: its text is written.
        write(json.dumps(to_json(row), ensure_ascii=False, default=str).encode() + b"\n")
        count += 1
    return count


WRITERS: dict[str, Callable[[Iterable[Row], IO[bytes]], int]] = {
    ".jsonl": _write_plain,
    ".jsonl.zst": _write_zstd,
    ".jsonl.gz": _write_gzip,
}
"""By the end of the file's name."""
