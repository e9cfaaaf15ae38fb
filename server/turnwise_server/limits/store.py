"""Where what was asked for is counted: the contract of every store, and the arithmetic that they share.

Requests and tokens are counted by leaky buckets: what is taken fills a bucket, what it holds leaks evenly, a whole
minute's limit in a minute, and what would overflow is refused. So a whole minute's limit may be taken at once, and in
no time span of `t` minutes more than `limit * (1 + t)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from turnwise_server.limits.rates import RateLimits

WINDOW_S = 60.0

Limit = Literal["requests", "tokens", "concurrent"]


@dataclass(frozen=True, slots=True)
class Account:
    """On whose account a request goes."""

    tenant: str
    """The key's id; empty for all clients of a server without keys."""
    limits: RateLimits
    request_id: str
    """Names what this request holds."""


@dataclass(frozen=True, slots=True)
class Levels:
    """How full the buckets of a tenant are, and which of the limits refused more, if one did."""

    requests: float = 0.0
    tokens: float = 0.0
    refused_by: Limit | None = None


class LimitStore(Protocol):
    """Counts for many tenants. No call blocks for long, whatever happens to the store."""

    async def take(
        self, account: Account, *, requests: int = 0, tokens: int = 0, slot: bool = False
    ) -> Levels:
        """Take all of it or, if a limit is reached, nothing.

        Args:
            account: who asks, and within which limits.
            requests: how many requests to count.
            tokens: how many tokens to count.
            slot: take one of the places that requests hold while they run; `give_back` frees it.
        """
        ...

    async def give_back(self, account: Account, *, tokens: int) -> None:
        """Return tokens that were taken and not used, and free the request's slot if it holds one."""
        ...

    async def close(self) -> None:
        """Close what the store has opened."""
        ...


def leaked(level: float, elapsed_s: float, size: int) -> float:
    """Return what is left in a bucket of `size` that held `level` some time ago."""
    return max(0.0, level - max(0.0, elapsed_s) * size / WINDOW_S)


def room(level: float, size: int) -> int:
    """Return how much may be taken at once."""
    return max(0, math.floor(size - level))


def seconds_until_room(level: float, amount: int, size: int) -> float:
    """Return how long to wait until `amount` may be taken; infinity if it is more than the bucket holds."""
    if amount > size:
        return math.inf
    return max(0.0, level + amount - size) * WINDOW_S / size


def seconds_until_empty(level: float, size: int) -> float:
    """Return how long to wait until the whole limit may be taken at once."""
    return level * WINDOW_S / size
