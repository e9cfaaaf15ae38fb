"""The bounded queue in front of an engine: how much may wait, and how much of that may be one tenant's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from turnwise_server.errors import QueueFullError

QUEUED_CONTEXTS = 8
"""Unless told otherwise, as many prompt tokens may wait as fill this many contexts."""


@dataclass(slots=True)
class _Share:
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class WaitingRoom:
    """Counts what waits. Requests that fill places of the batch in the next step are here for a moment, too.

    A tenant that has something waiting may wait with no more than is left for all others: alone it takes half of the
    room, one of two takes a third. So there is always room for a tenant that comes new. The tenant without a name,
    which is everybody on a server without keys, may fill it all.
    """

    max_requests: int
    max_tokens: int | None
    """None: as many as fill `QUEUED_CONTEXTS` contexts."""
    requests: int = 0
    tokens: int = 0
    _shares: defaultdict[str, _Share] = field(default_factory=lambda: defaultdict(_Share))

    def check(self, tenant: str, tokens: int, *, free: int, context_length: int) -> None:
        """Refuse a prompt of so many tokens if it would wait too long; `free` places of the batch are empty.

        Raises:
            QueueFullError: too much is waiting, or too much of one tenant.
        """
        if self.requests >= self.max_requests + free:
            raise QueueFullError(f"{self.requests} requests are waiting already. Try again in a moment.")
        max_tokens = self.max_tokens or QUEUED_CONTEXTS * context_length
        if self.requests and self.tokens + tokens > max_tokens:
            raise QueueFullError(f"{self.tokens} prompt tokens are waiting already. Try again in a moment.")
        share = self._shares.get(tenant)
        if tenant and share and self.requests >= free:
            left = self.max_requests - (self.requests - free)
            if share.requests >= left + free or share.tokens + tokens > max_tokens - self.tokens:
                raise QueueFullError(f"{share.requests} requests of one key are waiting already.")

    def enter(self, tenant: str, tokens: int) -> None:
        """Count a prompt that waits."""
        self._count(tenant, 1, tokens)

    def leave(self, tenant: str, tokens: int) -> None:
        """Count it no more."""
        self._count(tenant, -1, -tokens)

    def _count(self, tenant: str, requests: int, tokens: int) -> None:
        share = self._shares[tenant]
        self.requests += requests
        self.tokens += tokens
        share.requests += requests
        share.tokens += tokens
        if not share.requests:
            del self._shares[tenant]
