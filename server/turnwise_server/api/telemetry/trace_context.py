"""Trace ids after W3C Trace Context: read from the caller's `traceparent`, or made; one span for each request."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLED = 0x01
RANDOM = 0x02
"""The caller, or we, made the trace id of random bits (level 2 of the standard)."""

_KNOWN_FLAGS = SAMPLED | RANDOM
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which span of which trace; ids in lower-case hex."""

    trace_id: str
    span_id: str
    flags: int = 0

    @property
    def traceparent(self) -> str:
        """The context as a header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(headers: Sequence[str]) -> TraceContext | None:
    """Return what the caller's `traceparent` says, None if there is not exactly one that is valid."""
    match = _TRACEPARENT.fullmatch(headers[0].strip(" \t")) if len(headers) == 1 else None
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["rest"]):
        return None
    if not int(match["trace_id"], 16) or not int(match["span_id"], 16):
        return None
    return TraceContext(match["trace_id"], match["span_id"], int(match["flags"], 16) & _KNOWN_FLAGS)


def new_span(caller: TraceContext | None) -> TraceContext:
    """Return a span of the caller's trace, or of a new trace that nobody records."""
    if caller is None:
        return TraceContext(_random_id(16), _random_id(8), RANDOM)
    return TraceContext(caller.trace_id, _random_id(8), caller.flags)


def _random_id(n_bytes: int) -> str:
    """Return random bytes in hex, not all zero."""
    while not any(value := secrets.token_bytes(n_bytes)):
        pass
    return value.hex()
