"""One request's dealings with its key's limits: it enters, reserves tokens, and leaves with what it did not use."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from turnwise_server.auth import KeyRecord
from turnwise_server.errors import RateLimitError
from turnwise_server.limits.memory_store import MemoryStore
from turnwise_server.limits.rates import NO_LIMITS, RateLimits
from turnwise_server.limits.store import (
    Account,
    Levels,
    Limit,
    LimitStore,
    room,
    seconds_until_empty,
    seconds_until_room,
)

SLOT_WAIT_S = 1.0
"""When a request that found all slots taken may try again: nobody knows when one will be free."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands with one of its limits."""

    limit: int
    remaining: int
    reset_s: float
    """When the whole limit is there again, if nothing more is asked for."""


class Allowance:
    """What one request may use. Without limits it costs nothing and refuses nothing."""

    def __init__(self, store: LimitStore, account: Account) -> None:
        self._store = store
        self._account = account
        self._levels = Levels()
        self._reserved = 0
        self._used = 0
        self._is_inside = False

    async def enter(self) -> None:
        """Count the request, and take a slot for as long as it runs.

        Raises:
            RateLimitError: too many requests a minute, or at the same time. Nothing was counted.
        """
        limits = self._account.limits
        if limits:
            await self._take(requests=1, slot=bool(limits.concurrent))
            self._is_inside = True

    async def reserve(self, tokens: int) -> None:
        """Count as many tokens as the request may come to use.

        Raises:
            RateLimitError: too many tokens a minute. Nothing was counted.
        """
        if self._account.limits.tpm:
            await self._take(tokens=tokens)
            self._reserved += tokens

    def use(self, tokens: int) -> None:
        """Note how many of the reserved tokens were really used."""
        self._used += tokens

    async def leave(self) -> None:
        """Free the slot and give back what was reserved and not used. Call it once the request has ended."""
        if self._is_inside and (self._reserved or self._account.limits.concurrent):
            unused = max(0, self._reserved - self._used)
            await self._store.give_back(self._account, tokens=unused)
        self._is_inside = False

    def requests(self) -> Standing | None:
        """Say where the key stands with its requests a minute; None if they are not limited."""
        return _standing(self._account.limits.rpm, self._levels.requests)

    def tokens(self) -> Standing | None:
        """Say where the key stands with its tokens a minute; None if they are not limited."""
        return _standing(self._account.limits.tpm, self._levels.tokens)

    async def _take(self, *, requests: int = 0, tokens: int = 0, slot: bool = False) -> None:
        limits = self._account.limits
        self._levels = await self._store.take(self._account, requests=requests, tokens=tokens, slot=slot)
        match self._levels.refused_by:
            case "concurrent" if limits.concurrent:
                raise RateLimitError("concurrent", limit=limits.concurrent, requested=1, wait_s=SLOT_WAIT_S)
            case "requests" if limits.rpm:
                raise _too_many("requests", self._levels.requests, requests, limits.rpm)
            case "tokens" if limits.tpm:
                raise _too_many("tokens", self._levels.tokens, tokens, limits.tpm)


class RateLimiter:
    """Knows the limits of every key."""

    def __init__(self, store: LimitStore, defaults: RateLimits) -> None:
        """Count in `store`; `defaults` hold where a key says nothing itself."""
        self._store = store
        self._defaults = defaults

    def allowance(self, key: KeyRecord | None) -> Allowance:
        """Return what a new request may use; without a key it goes on the one account that all others share."""
        limits = (key.limits if key else NO_LIMITS).over(self._defaults)
        return Allowance(self._store, Account(key.key_id if key else "", limits, secrets.token_hex(12)))

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


def unlimited() -> Allowance:
    """Return the allowance of a request that no limit is asked about."""
    return Allowance(MemoryStore(), Account("", NO_LIMITS, ""))


def _standing(limit: int | None, level: float) -> Standing | None:
    return Standing(limit, room(level, limit), seconds_until_empty(level, limit)) if limit else None


def _too_many(kind: Limit, level: float, amount: int, limit: int) -> RateLimitError:
    return RateLimitError(
        kind, limit=limit, requested=amount, wait_s=seconds_until_room(level, amount, limit)
    )
