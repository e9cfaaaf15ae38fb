"""Keeps the policy in force while its file changes: a valid change takes effect, an invalid one is told and ignored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import structlog

from turnwise_server.chat.refusal.policy_file import LoadedPolicy, load_policy
from turnwise_server.errors import PolicyError

_log = structlog.get_logger()


class _Signature(NamedTuple):
    """What tells one state of a file from another without reading it; a replaced file has another inode."""

    inode: int
    size: int
    modified_ns: int


class PolicyHolder:
    """The policy in force. `refresh` is called from one thread at a time; `current` is read from any."""

    def __init__(self, file: Path) -> None:
        """Load the policy.

        Raises:
            PolicyError: it cannot be read or is wrong.
        """
        self._file = file
        self._signature = _signature(file)
        self.current: LoadedPolicy = load_policy(file)
        """The last valid policy. A reply keeps the one it began with."""
        self.fault: str | None = None
        """Why the file as it is now is not in force, as `FILE:LINE: reason`; None if it is."""

    def refresh(self, *, must_read: bool = False) -> bool:
        """Take the file's policy into force if the file has changed, and say whether the policy is another one now.

        Args:
            must_read: read the file even if it seems unchanged, as somebody wants who sends SIGHUP.
        """
        # The signature is taken before the file is read: a change in between is seen the next time.
        signature = _signature(self._file)
        if signature == self._signature and not must_read:
            return False
        self._signature = signature
        try:
            loaded = load_policy(self._file)
        except PolicyError as error:
            if self.fault != str(error):
                _log.error("policy_not_loaded", reason=str(error), sha256_in_force=self.current.sha256)
            self.fault = str(error)
            return False
        self.fault = None
        is_other = loaded.sha256 != self.current.sha256
        if is_other:
            _log.info("policy_loaded", name=loaded.policy.name, sha256=loaded.sha256)
        self.current = loaded
        return is_other


async def watch_policy(holder: PolicyHolder, interval_s: float) -> None:
    """Look for changes every `interval_s` seconds, in a thread, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        await asyncio.to_thread(holder.refresh)


def _signature(file: Path) -> _Signature | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Signature(status.st_ino, status.st_size, status.st_mtime_ns)
