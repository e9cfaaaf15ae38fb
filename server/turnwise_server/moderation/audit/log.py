"""The audit as the server uses it: records are taken at once, and written in batches by a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from turnwise_server.chat.refusal.policy_stages import Audit
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError
from turnwise_server.log import get_logger
from turnwise_server.moderation.audit.record import AuditRecord, note, utc_now
from turnwise_server.moderation.audit.writer import ChainWriter

MAX_WAITING: Final = 10_000
"""Most records that wait to be written."""

MAX_WAITING_CHARS: Final = 64 * 2**20
"""Most characters of judged texts that wait with them."""

MAX_BATCH: Final = 1_000
"""Most records that are written at once."""

RETRY_S: Final = 1.0
"""How long after a failure the next try is made."""

EXPIRY_INTERVAL: Final = timedelta(hours=1)
"""How often files are looked for whose time is over."""


class AuditLog:
    """Takes decisions from the event loop and writes them to the chain."""

    def __init__(self, path: Path, rules: Audit) -> None:
        """Open the audit at `path`, which `files.audit_path` finds, and begin to write.

        Raises:
            ConfigurationError: another process writes it, it cannot be written, or its end is no record.
        """
        self._writer = ChainWriter(path)
        self._rules = rules
        self._changed = threading.Condition()
        self._waiting: deque[AuditRecord] = deque()
        self._waiting_chars = 0
        self._taken = 0
        self._written = 0
        self._flushes: deque[tuple[int, Future[None]]] = deque()
        self._lost = 0
        self._lost_untold = 0
        self._fails = False
        self._is_closing = False
        self._is_over = False
        self._next_expiry = utc_now()
        # A daemon: a process that ends by an error must not wait for a disk.
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many records there was no room for while nothing could be written."""
        return self._lost

    @property
    def is_writable(self) -> bool:
        """Whether the last write worked, and there is room for more."""
        return not (self._fails or self._is_over or self._is_full)

    def follow(self, rules: Audit) -> None:
        """Take the rules of a new policy, all but the path, which is that of the start."""
        self._rules = rules

    def append(self, record: AuditRecord) -> None:
        """Take a record. It is written soon; if there is no room for it, it is counted as lost."""
        with self._changed:
            if self._is_full or self._is_over:
                self._lost += 1
                self._lost_untold += 1
            else:
                self._taken += 1
                self._waiting.append(record)
                self._waiting_chars += len(record.text or "")
            self._changed.notify()

    def require_writable(self) -> None:
        """Refuse work whose decisions could not be recorded, unless the policy lets it go on.

        Raises:
            ModerationUnavailableError: nothing can be written now, and `audit.on_error` is `closed`.
        """
        if self._rules.on_error == "closed" and not self.is_writable:
            raise _unavailable()

    async def flush(self) -> None:
        """Wait until what was taken before is on disk. With `audit.on_error: open` a failed try is enough.

        Raises:
            ModerationUnavailableError: it could not be written now, and `audit.on_error` is `closed`.
        """
        done: Future[None] = Future()
        with self._changed:
            self._flushes.append((self._taken, done))
            if self._written >= self._taken or self._is_over:
                self._end_flushes(is_failure=self._is_over)
        await asyncio.wrap_future(done)

    def close(self) -> None:
        """Write what waits, with one more try if writing fails, and let others write the file."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        if self._waiting or self._lost_untold:
            get_logger().error("audit_incomplete", records=len(self._waiting) + self._lost_untold)
        self._writer.close()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or self._waiting_chars >= MAX_WAITING_CHARS

    def _run(self) -> None:
        try:
            while self._work():
                pass
        finally:  # also after a fault of ours: what cannot be recorded must be known
            with self._changed:
                self._is_over = True
                self._end_flushes(is_failure=True)

    def _work(self) -> bool:
        """Wait for records, write a batch of them, and return whether to go on."""
        with self._changed:
            if self._fails:
                self._changed.wait_for(lambda: self._is_closing, RETRY_S)
            else:
                self._changed.wait_for(self._has_work, self._until_expiry())
            is_last = self._is_closing
            batch = [*islice(self._waiting, MAX_BATCH)]
            lost = self._lost_untold
        try:
            self._expire()
            self._write(batch, lost)
        except OSError as error:
            self._failed(error)
            return not is_last
        self._succeeded(batch, lost)
        return bool(self._waiting) or not is_last

    def _has_work(self) -> bool:
        return bool(self._waiting or self._lost_untold) or self._is_closing

    def _until_expiry(self) -> float:
        return max((self._next_expiry - utc_now()).total_seconds(), 0.0)

    def _expire(self) -> None:
        if utc_now() < self._next_expiry:
            return
        self._next_expiry = utc_now() + EXPIRY_INTERVAL
        try:
            self._writer.rotate(self._rules)
            self._writer.expire(self._rules)
        except OSError as error:
            get_logger().error("audit_not_deleted", reason=str(error))

    def _write(self, batch: list[AuditRecord], lost: int) -> None:
        with_text = self._rules.content == "full"
        entries = [record.entry(with_text=with_text) for record in batch]
        if lost:
            entries.append(note("loss", utc_now(), records=lost))
        self._writer.rotate(self._rules)
        self._writer.write(entries)

    def _failed(self, error: OSError) -> None:
        if not self._fails:
            get_logger().error("audit_failed", reason=str(error), on_error=self._rules.on_error)
        with self._changed:
            self._fails = True
            self._end_flushes(is_failure=True)

    def _succeeded(self, batch: list[AuditRecord], lost: int) -> None:
        if self._fails:
            get_logger().warning("audit_recovered", lost=lost)
        with self._changed:
            for record in batch:
                self._waiting.popleft()
                self._waiting_chars -= len(record.text or "")
            self._written += len(batch)
            self._lost_untold -= lost
            self._fails = False
            self._end_flushes(is_failure=False)

    def _end_flushes(self, *, is_failure: bool) -> None:
        """Tell those who wait for what is written now; after a failure, all of them."""
        while self._flushes and (is_failure or self._flushes[0][0] <= self._written):
            taken, done = self._flushes.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            if taken > self._written and self._rules.on_error == "closed":
                done.set_exception(_unavailable())
            else:
                done.set_result(None)


def _unavailable() -> ModerationUnavailableError:
    return ModerationUnavailableError("decisions cannot be recorded now")
