"""Writes the chain to its files: locks, repairs, rotates, deletes what is old. Blocking; for one thread.

What was there at the last fsync that worked is never written again. What came after is, once a write or fsync failed:
whether it reached the disk is not known (https://www.usenix.org/conference/atc20/presentation/rebello).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Final

from turnwise_server.chat.refusal.policy_stages import Audit
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.audit.chain import START, BrokenRecordError, Link, read_line, seal
from turnwise_server.moderation.audit.files import (
    OldFile,
    lock_path,
    old_files,
    old_path,
    read_tail,
)
from turnwise_server.moderation.audit.record import Entry, note, utc_now

DAILY: Final = timedelta(days=1)
"""How often a new file is begun where files are kept for a time only."""

MAX_QUOTED_BYTES: Final = 4096
"""How much of a torn line its repair quotes."""


class AuditInUseError(ConfigurationError):
    """Another process writes the audit."""


class ChainWriter:
    """The one that may write an audit's files."""

    def __init__(self, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        """Take the lock, find the end of the chain, and repair a line that was torn.

        Raises:
            ConfigurationError: another process writes it, it cannot be written, or its end is no record.
        """
        self._path = path
        self._now = now
        self._size = 0
        self._begun: datetime | None = None
        self._notes: list[Entry] = []
        try:
            with ExitStack() as undo:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _take_lock(path)
                undo.callback(os.close, self._lock)
                self._file = self._open()
                undo.callback(os.close, self._file)
                self._last = self._find_end()
                os.fchmod(self._file, 0o600)  # not before it is known to be an audit
                self.write(())
                undo.pop_all()
        except OSError as error:
            raise ConfigurationError(
                f"the audit {str(path)!r} cannot be written ({error.strerror}): make its directory writable, or set "
                "another audit.path in the policy"
            ) from error

    def close(self) -> None:
        """Close the file, and let others write it."""
        os.close(self._file)
        os.close(self._lock)

    def write(self, entries: Iterable[Entry]) -> None:
        """Write records, and return when they are on disk: all of them, or none.

        Raises:
            OSError: none was written.
        """
        self._follow_path()
        lines, last = seal((*self._notes, *entries), self._last)
        if not lines:
            return
        try:
            _write_at(self._file, lines, self._size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        if self._begun is None:
            self._begun = self._now()
        self._size += len(lines)
        self._last = last
        self._notes.clear()

    def rotate(self, rules: Audit) -> None:
        """Put the file away and begin a new one, if it is full, or old while files are kept for a time only.

        Raises:
            OSError: it cannot be done now.
        """
        is_full = self._size >= rules.rotate_mb * 2**20
        is_old = (
            rules.retention_days is not None
            and self._begun is not None
            and self._now() - self._begun >= DAILY
        )
        if self._size and (is_full or is_old):
            self._path.rename(old_path(self._path, self._last))
            self._replace_file()

    def expire(self, rules: Audit) -> None:
        """Delete the files whose time is over, after a record that says so.

        Raises:
            OSError: not all of them are deleted.
        """
        if rules.retention_days is None:
            return
        limit = self._now() - timedelta(days=rules.retention_days)
        expired = [*takewhile(lambda file: file.ended < limit, old_files(self._path))]
        if not expired:
            return
        self.write([self._deletion(expired)])
        for file in expired:
            file.path.unlink(missing_ok=True)
        _sync_directory(self._path)

    def _deletion(self, expired: list[OldFile]) -> Entry:
        last: Link | None = None
        with suppress(
            BrokenRecordError
        ):  # it goes all the same; the check will say that its end is not known
            last = _last_link(expired[-1].path)
        return note(
            "deletion",
            self._now(),
            files=[file.path.name for file in expired],
            last_seq=last.seq if last else None,
            last_hash=last.hash if last else None,
        )

    def _open(self) -> int:
        """Open the file at the path, which may be new, and take its size and age."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _sync_directory(self._path)
        self._size = os.fstat(file).st_size
        self._begun = _first_moment(self._path)
        return file

    def _replace_file(self) -> None:
        before, self._file = self._file, self._open()
        os.fchmod(self._file, 0o600)
        os.close(before)

    def _follow_path(self) -> None:
        """Go on in a new file where the old one was deleted, moved or cut, and have the chain say so."""
        with suppress(FileNotFoundError):
            there = self._path.stat()
            if os.path.samestat(there, os.fstat(self._file)) and there.st_size >= self._size:
                return
        self._replace_file()
        self._notes.append(note("repair", self._now(), problem="replaced", bytes=self._size))
        self._cut(read_tail(self._file)[1])

    def _find_end(self) -> Link:
        line, torn = read_tail(self._file)
        earlier = old_files(self._path)
        try:
            if line is not None:
                last = read_line(line).link
            elif torn[:1] not in b"{\0":
                raise BrokenRecordError("the file is no audit")
            else:
                last = _last_link(earlier[-1].path) if earlier else START
        except BrokenRecordError as error:
            raise ConfigurationError(
                f"the last record of the audit {str(self._path)!r} is damaged ({error}): see `turnwise-server audit "
                "verify`, and move all its files elsewhere to begin a new chain"
            ) from error
        self._cut(torn)
        return last

    def _cut(self, torn: bytes) -> None:
        """Write over a line that was not finished, and have the chain say so."""
        if torn:
            self._size -= len(torn)
            digest = hashlib.sha256(torn).hexdigest()
            quoted = torn[:MAX_QUOTED_BYTES].decode("ascii", "backslashreplace")
            facts = {"problem": "torn", "bytes": len(torn), "sha256": digest, "quoted": quoted}
            self._notes.append(note("repair", self._now(), **facts))


def _take_lock(path: Path) -> int:
    lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AuditInUseError(
            f"the audit {str(path)!r} is written by another process, such as a second server: end that one, or set "
            "another audit.path in the policy of this one"
        ) from error
    return lock


def _write_at(file: int, data: bytes, offset: int) -> None:
    """Make `data` what a file holds from `offset` to its end, on disk."""
    end = offset + len(data)
    rest = memoryview(data)
    while rest:
        rest = rest[os.pwrite(file, rest, end - len(rest)) :]
    os.ftruncate(file, end)
    os.fsync(file)


def _sync_directory(path: Path) -> None:
    """Have the names in a file's directory on disk."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _last_link(path: Path) -> Link:
    with path.open("rb") as file:
        line, torn = read_tail(file.fileno())
    if line is None or torn:
        raise BrokenRecordError(f"{path.name} does not end with a whole record")
    return read_line(line).link


def _first_moment(path: Path) -> datetime | None:
    """Return when the first record of a file was made; None if there is none, or it is damaged."""
    with path.open("rb") as file, suppress(BrokenRecordError):
        return datetime.fromisoformat(read_line(file.readline()[:-1]).link.ts)
    return None
