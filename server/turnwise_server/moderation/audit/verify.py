"""Checks the chain of an audit: every record by its own hash, and by that of the record before.

It reads the files one line at a time, also while a server writes them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from turnwise_server.moderation.audit.chain import GENESIS, START, BrokenRecordError, Link, Sealed, read_line
from turnwise_server.moderation.audit.files import lock_path, old_files

FaultKind: TypeAlias = Literal["changed", "missing", "reordered", "torn", "genesis", "cut"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a chain is broken first, and how."""

    kind: FaultKind
    file: str
    line: int
    """From 1; 0 for the chain as a whole."""
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check came to."""

    path: Path
    files: int
    records: int
    """Those that were read and are right."""
    first: Link | None
    last: Link | None
    repairs: int
    """Records that say that the file was found torn, or was gone."""
    lost: int
    """Decisions that were never written, as the audit itself says."""
    deleted: int
    """Records that were deleted after their time, as the audit itself says."""
    fault: Fault | None


def verify(path: Path, expect: str | None = None) -> Report:
    """Check the chain that ends in the file `path`, and that the hash `expect`, noted earlier, is in it.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    walk = _Walk(path, expect)
    walk.run()
    return walk.report()


class _BrokenError(Exception):
    def __init__(self, kind: FaultKind, reason: str) -> None:
        self.kind = kind
        self.reason = reason


class _Walk:
    """One pass over the files of a chain."""

    def __init__(self, path: Path, expect: str | None) -> None:
        self._path = path
        self._expect = expect
        self._files = self._records = self._repairs = self._lost = 0
        self._first: Sealed | None = None
        self._first_file = path.name
        self._last = START
        self._is_start_known = False
        self._fault: Fault | None = None

    def run(self) -> None:
        for name, file in _open_files(self._path):
            with file:
                self._files += 1
                self._read(name, file)
            if self._fault:
                return
        self._fault = self._fault_of_whole()

    def report(self) -> Report:
        first = self._first.link if self._first else None
        return Report(
            path=self._path,
            files=self._files,
            records=self._records,
            first=first,
            last=self._last if first else None,
            repairs=self._repairs,
            lost=self._lost,
            deleted=first.seq - 1 if first and self._is_start_known else 0,
            fault=self._fault,
        )

    def _read(self, name: str, file: BinaryIO) -> None:
        for number, line in enumerate(file, 1):
            try:
                self._take(name, line)
            except _BrokenError as broken:
                if broken.kind == "torn" and name == self._path.name and _is_written(self._path):
                    return  # its writer has not come to the end of it
                self._fault = Fault(broken.kind, name, number, broken.reason)
                return

    def _take(self, name: str, line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise _BrokenError("torn", "the line was not finished; the server repairs that when it starts")
        try:
            sealed = read_line(line[:-1])
        except BrokenRecordError as error:
            raise _BrokenError("changed", str(error)) from error
        if self._first is None:
            self._begin(name, sealed)
        else:
            _check_order(sealed, self._last)
        self._last = sealed.link
        self._records += 1
        self._expect = None if sealed.link.hash == self._expect else self._expect
        self._note(sealed)

    def _begin(self, name: str, sealed: Sealed) -> None:
        if (sealed.link.seq == 1) != (sealed.prev == GENESIS):
            raise _BrokenError("genesis", "the record neither begins a chain nor follows another one")
        self._first, self._first_file = sealed, name
        self._is_start_known = sealed.prev == GENESIS

    def _note(self, sealed: Sealed) -> None:
        match sealed.entry:
            case {"kind": "repair"}:
                self._repairs += 1
            case {"kind": "loss", "records": int(records)}:
                self._lost += records
            case {"kind": "deletion", "last_seq": int(seq), "last_hash": str(hash_)} if self._first:
                is_start = self._first.link.seq <= seq or self._first.prev == hash_
                self._is_start_known = self._is_start_known or is_start

    def _fault_of_whole(self) -> Fault | None:
        if self._first and not self._is_start_known:
            seq = self._first.link.seq
            return Fault(
                "missing",
                self._first_file,
                1,
                f"the chain begins with record {seq}, and none says that those before were deleted after their time",
            )
        if self._expect:
            return Fault("cut", self._path.name, 0, f"no record has the hash {self._expect}")
        return None


def _check_order(sealed: Sealed, last: Link) -> None:
    seq, due = sealed.link.seq, last.seq + 1
    if seq > due:
        raise _BrokenError("missing", f"record {due} is due, here stands record {seq}")
    if seq < due:
        raise _BrokenError("reordered", f"record {due} is due, here stands record {seq}, which came earlier")
    if sealed.prev != last.hash:
        raise _BrokenError("changed", f"the record follows another record {last.seq} than the one before it")


def _open_files(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the files of a chain, the oldest first, each once, even if the newest is put away meanwhile."""
    newest: BinaryIO | None = None
    with suppress(FileNotFoundError):
        newest = path.open("rb")
    older = old_files(path)
    if newest is None and not older:
        raise FileNotFoundError(f"there is no audit {str(path)!r}")
    try:
        for old in older:
            if newest is None or not os.path.samestat(old.path.stat(), os.fstat(newest.fileno())):
                yield old.path.name, old.path.open("rb")
        if newest is not None:
            yield path.name, newest
    finally:
        if newest is not None:
            newest.close()


def _is_written(path: Path) -> bool:
    """Return whether a server holds the audit's lock."""
    try:
        with lock_path(path).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
