"""Keeps the policy in force while its file changes: a valid change takes effect, an invalid one is told and ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from turnwise_server.chat.refusal.policy_file import LoadedPolicy, load_policy
from turnwise_server.errors import ConfigurationError

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
        self.enact: Callable[[LoadedPolicy], None] = lambda _: None
        """Called with every policy that follows, before it takes effect; where it raises, the one before stays."""
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
            is_other = loaded.sha256 != self.current.sha256
            if is_other:
                self.enact(loaded)
        except ConfigurationError as error:
            if self.fault != str(error):
                _log.error("policy_not_loaded", reason=str(error), sha256_in_force=self.current.sha256)
            self.fault = str(error)
            return False
        self.fault = None
        if is_other:
            _log.info("policy_loaded", name=loaded.policy.name, sha256=loaded.sha256)
        self.current = loaded
        return is_other


def _signature(file: Path) -> _Signature | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Signature(status.st_ino, status.st_size, status.st_mtime_ns)
