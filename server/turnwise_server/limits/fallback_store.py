"""A shared store with a local one behind it: while the shared one is out of reach, each replica limits by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from turnwise_server.limits.memory_store import MemoryStore
from turnwise_server.limits.redis_store import RedisStore, StoreLostError
from turnwise_server.limits.store import Account, Levels
from turnwise_server.log import get_logger

RETRY_S = 2.0
"""How long a lost store is left alone; then one request tries it again."""


class FallbackStore:
    """Implements `LimitStore`. It never fails: a lost store costs one request `TIMEOUT_S`, and the others nothing."""

    def __init__(self, shared: RedisStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._local = MemoryStore()
        self._clock = clock
        self._retry_at: float | None = None
        self._taken_locally: set[str] = set()
        self.failures = 0
        """How many commands have failed so far."""

    @property
    def is_lost(self) -> bool:
        """Whether each replica limits by itself at the moment."""
        return self._retry_at is not None

    async def take(
        self, account: Account, *, requests: int = 0, tokens: int = 0, slot: bool = False
    ) -> Levels:
        """Take all of it or nothing; see `LimitStore`."""
        if account.request_id not in self._taken_locally and self._may_try():
            try:
                levels = await self._shared.take(account, requests=requests, tokens=tokens, slot=slot)
            except StoreLostError as error:
                self._note_loss(error)
            else:
                self._note_answer()
                return levels
        levels = await self._local.take(account, requests=requests, tokens=tokens, slot=slot)
        if (tokens or slot) and not levels.refused_by:
            self._taken_locally.add(account.request_id)
        return levels

    async def give_back(self, account: Account, *, tokens: int) -> None:
        """Return tokens to where they were taken, and free the slot; see `LimitStore`."""
        if account.request_id in self._taken_locally:
            self._taken_locally.discard(account.request_id)
            await self._local.give_back(account, tokens=tokens)
            tokens = 0
        if not self._may_try():
            self._shared.let_go(account)
            return
        try:
            await self._shared.give_back(account, tokens=tokens)
        except StoreLostError as error:
            self._note_loss(error)
        else:
            self._note_answer()

    async def close(self) -> None:
        """Close the shared store."""
        await self._shared.close()

    def _may_try(self) -> bool:
        if self._retry_at is None:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + RETRY_S
        return True

    def _note_loss(self, error: StoreLostError) -> None:
        self.failures += 1
        if not self.is_lost:
            remedy = "check the Redis server and redis_url; until it answers, every replica limits by itself"
            get_logger().error("rate_limit_store_lost", error_type=str(error), remedy=remedy)
        self._retry_at = self._clock() + RETRY_S

    def _note_answer(self) -> None:
        if self.is_lost:
            get_logger().info("rate_limit_store_found", failures=self.failures)
        self._retry_at = None
