"""The chain: every line of the audit holds the digest of the line before it, and its own. Pure.

A line is the record as JSON with sorted keys in ASCII, and behind them the member `hash`, the SHA-256 of the line
without that member. `prev`, the hash of the record before, and `seq`, its number from 1, are among what is hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from turnwise_server.moderation.audit.record import Entry

GENESIS: Final = "0" * 64
"""What the first record of a chain has for the hash of the one before."""

_HASH_START: Final = b',"hash":"'
_SEAL_BYTES: Final = len(_HASH_START) + 64 + len('"}')

Value = TypeVar("Value")


class BrokenRecordError(ValueError):
    """A line is no record, or was changed after it was written; the message says which."""


@dataclass(frozen=True, slots=True)
class Link:
    """A record's place in the chain."""

    seq: int
    hash: str
    ts: str = ""


START: Final = Link(0, GENESIS)
"""What a chain's first record follows."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record as it was read."""

    link: Link
    prev: str
    entry: Entry


def seal(entries: Iterable[Entry], after: Link) -> tuple[bytes, Link]:
    """Return records as lines that follow a link, and the link of the last one."""
    lines = bytearray()
    for entry in entries:
        seq = after.seq + 1
        body = json.dumps(
            {**entry, "seq": seq, "prev": after.hash},
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        ).encode("ascii")
        after = Link(seq, hashlib.sha256(body).hexdigest(), str(entry["ts"]))
        lines += body[:-1] + _HASH_START + after.hash.encode("ascii") + b'"}\n'
    return bytes(lines), after


def read_line(line: bytes) -> Sealed:
    """Read a line without its newline.

    Raises:
        BrokenRecordError: it does not match its own hash, or is no record.
    """
    body = line[:-_SEAL_BYTES] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    if line[-_SEAL_BYTES:] != _HASH_START + digest.encode("ascii") + b'"}':
        raise BrokenRecordError("the record does not match its hash")
    try:
        entry = json.loads(body)
        link = Link(_typed(entry["seq"], int), digest, _moment(entry["ts"]))
        return Sealed(link, _typed(entry["prev"], str), entry)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenRecordError("the line is no record of an audit") from error


def _moment(value: object) -> str:
    moment = _typed(value, str)
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ValueError
    return moment


def _typed(value: object, kind: type[Value]) -> Value:
    if not isinstance(value, kind):
        raise TypeError
    return value
