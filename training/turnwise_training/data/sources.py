"""Rows of a file or of a named source, in native kinds whatever format they are written in."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turnwise_training.data.formats import Format, convert_row
from turnwise_training.data.native import UnusableRow
from turnwise_training.data.readers import SUFFIXES, read_values
from turnwise_training.data.rows import Row, contents
from turnwise_training.errors import DataError

SYNTHETIC_PREFIX = "synthetic"
"""Sources of this name are written by our own programs instead of being read from a file."""

_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What reading came across."""

    formats: Counter[str] = field(default_factory=Counter)
    """Rows by the name of their format."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""

    def add(self, format_: Format, rows: Sequence[Row], path: Path) -> None:
        """Count rows of a format; a foreign one is named in the log when it is met first."""
        if format_.name not in self.formats and not format_.is_native:
            _log.info("%s: reading rows of the format %r", path, format_.name)
        self.formats[format_.name] += len(rows)


def read_rows(path: Path, *, tally: Tally | None = None) -> Iterator[Row]:
    """Yield the rows of a file in order; formats and dropped rows are counted in `tally` and logged.

    Raises DataError naming file and line for anything that is not UTF-8, JSON or a row of a known format.
    """
    tally = tally or Tally()
    for where, value in read_values(path):
        try:
            format_, rows = convert_row(value, where)
        except UnusableRow as reason:
            tally.dropped[str(reason)] += 1
            continue
        tally.add(format_, rows, path)
        yield from rows
    for reason_text, count in sorted(tally.dropped.items()):
        _log.info("%s: dropped %d rows: %s", path, count, reason_text)


def read_source(data: Path, name: str, *, seed: int, drop_containing: Sequence[str] = ()) -> list[Row]:
    """Return every row of source `name`: a file's (see `source_path`), or the dialogues a program writes.

    Rows that hold one of `drop_containing` are left out.
    """
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
    """Return the file of source `name`, or None if a program writes it.

    A name with a known suffix is the path of a user's own file; any other names a file under `data`, whatever its
    suffix. Raises DataError where two files have the name.
    """
    if name.endswith(SUFFIXES):
        return Path(name)
    if name.startswith(SYNTHETIC_PREFIX):
        return None
    found = [path for suffix in SUFFIXES if (path := data / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(f"source {name!r} could be any of {', '.join(map(str, found))}; name the file itself")
    return found[0] if found else data / f"{name}.jsonl.zst"
