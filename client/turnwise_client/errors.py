"""Every error the client raises on purpose, and the exit status each one means.

ClientError
├── UsageError              the command line, a setting or a command is wrong: exit 2
└── ServerError             the server, or the way to it, failed: exit 1
    ├── UnreachableError    nothing answers at the address
    ├── RejectedError       the server answered with an error instead of a reply
    └── BrokenReplyError    a reply began and did not end properly
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process tells its caller."""

    OK = 0
    SERVER_ERROR = 1
    USAGE = 2
    INTERRUPTED = 130


class ClientError(Exception):
    """Base of every error raised on purpose; the message is one line for the user."""

    exit_status = ExitStatus.SERVER_ERROR


class UsageError(ClientError):
    """The command line, a setting or a command is wrong; the message says what would be right."""

    exit_status = ExitStatus.USAGE


class ServerError(ClientError):
    """The server, or the way to it, failed."""


class UnreachableError(ServerError):
    """Nothing answers at the address."""


class RejectedError(ServerError):
    """The server answered with an error instead of a reply."""


class BrokenReplyError(ServerError):
    """A reply began and did not end properly; what arrived of it is worth keeping."""
