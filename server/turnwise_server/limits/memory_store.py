"""Counts in this process: for one server, or while the store that several of them share is out of reach."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from turnwise_server.limits.rates import RateLimits
from turnwise_server.limits.store import Account, Levels, Limit, leaked


@dataclass(slots=True)
class _Tenant:
    levels: Levels = field(default_factory=Levels)
    at: float = 0.0
    """When the levels were right."""
    slots: set[str] = field(default_factory=set)


class MemoryStore:
    """Implements `LimitStore`. There are as many tenants as keys, so nothing has to be forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tenants: dict[str, _Tenant] = defaultdict(_Tenant)

    async def take(
        self, account: Account, *, requests: int = 0, tokens: int = 0, slot: bool = False
    ) -> Levels:
        """Take all of it or nothing; see `LimitStore`."""
        tenant = self._leak(account)
        wanted = Levels(tenant.levels.requests + requests, tenant.levels.tokens + tokens)
        refused_by = _refusal(account.limits, wanted, len(tenant.slots) if slot else -1)
        if refused_by:
            return replace(tenant.levels, refused_by=refused_by)
        tenant.levels = wanted
        if slot:
            tenant.slots.add(account.request_id)
        return wanted

    async def give_back(self, account: Account, *, tokens: int) -> None:
        """Return tokens and free the slot; see `LimitStore`."""
        tenant = self._leak(account)
        tenant.levels = replace(tenant.levels, tokens=max(0.0, tenant.levels.tokens - tokens))
        tenant.slots.discard(account.request_id)

    async def close(self) -> None:
        """There is nothing to close."""

    def _leak(self, account: Account) -> _Tenant:
        """Bring a tenant's levels up to now."""
        tenant, now, limits = self._tenants[account.tenant], self._clock(), account.limits
        elapsed_s, tenant.at = now - tenant.at, now
        tenant.levels = Levels(
            leaked(tenant.levels.requests, elapsed_s, limits.rpm) if limits.rpm else 0.0,
            leaked(tenant.levels.tokens, elapsed_s, limits.tpm) if limits.tpm else 0.0,
        )
        return tenant


def _refusal(limits: RateLimits, wanted: Levels, slots_taken: int) -> Limit | None:
    if limits.concurrent and slots_taken >= limits.concurrent:
        return "concurrent"
    if limits.rpm and wanted.requests > limits.rpm:
        return "requests"
    if limits.tpm and wanted.tokens > limits.tpm:
        return "tokens"
    return None
