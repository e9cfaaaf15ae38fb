"""Counts in Redis, so that several replicas of the server share one limit. Times are those of the Redis server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from turnwise_server.errors import ConfigurationError
from turnwise_server.limits.store import WINDOW_S, Account, Levels, Limit

TIMEOUT_S = 0.5
"""The longest that one command may take, and making a connection."""

LEASE_S = 30.0
"""A slot that nobody renews is free after this long: so a replica that is killed leaks none."""

MAX_CONNECTIONS = 16

_TAKE = """
-- KEYS: the requests' bucket, the tokens' bucket, the slots
-- ARGV: window; limits of the three (0: none); requests, tokens; the slot to take or ''; the slot to free or ''; lease
local window, lease = tonumber(ARGV[1]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function level(key, size)
  local saved = redis.call('HMGET', key, 'level', 'at')
  if size == 0 or not saved[1] then return 0 end
  return math.max(0, saved[1] - math.max(0, now - saved[2]) * size / window)
end

local function save(key, size, value)
  if size > 0 then
    redis.call('HSET', key, 'level', string.format('%.9f', value), 'at', string.format('%.6f', now))
    redis.call('PEXPIRE', key, math.ceil(window * 1000))
  end
end

if ARGV[8] ~= '' then redis.call('ZREM', KEYS[3], ARGV[8]) end
local rpm, tpm, slots = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local requests, tokens = level(KEYS[1], rpm), level(KEYS[2], tpm)
local more_requests = requests + ARGV[5]
local more_tokens = math.max(0, tokens + ARGV[6])

local refused_by = ''
if ARGV[7] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= slots then refused_by = 'concurrent' end
end
if refused_by == '' and rpm > 0 and more_requests > rpm then refused_by = 'requests' end
if refused_by == '' and tpm > 0 and more_tokens > tpm then refused_by = 'tokens' end

if refused_by == '' then
  requests, tokens = more_requests, more_tokens
  save(KEYS[1], rpm, requests)
  save(KEYS[2], tpm, tokens)
  if ARGV[7] ~= '' then
    redis.call('ZADD', KEYS[3], now + lease, ARGV[7])
    redis.call('PEXPIRE', KEYS[3], math.ceil(lease * 1000))
  end
end
return {refused_by, string.format('%.9f', requests), string.format('%.9f', tokens)}
"""

_RENEW = """
-- KEYS: slots; ARGV: lease, then the slots to renew; those freed meanwhile stay free.
local time = redis.call('TIME')
local ends = time[1] + time[2] / 1e6 + ARGV[1]
for index = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', ends, ARGV[index]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] * 1000))
"""


class StoreLostError(Exception):
    """Redis does not answer, or not as it should."""


class RedisStore:
    """Implements `LimitStore`, but raises `StoreLostError` where Redis fails; it never waits longer than `TIMEOUT_S`.

    Each decision is one script, so it is atomic whatever other replicas do.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S) -> None:
        """Connect with the first command.

        Raises:
            ConfigurationError: the address makes no sense.
        """
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
        except ValueError as error:
            raise ConfigurationError(
                "the redis_url is not the address of a Redis server, such as redis://localhost:6379/0"
            ) from error
        self._redis = Redis(connection_pool=pool)
        self._take = self._redis.register_script(_TAKE)
        self._renew = self._redis.register_script(_RENEW)
        self._lease_s = lease_s
        self._held: dict[str, set[str]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def take(
        self, account: Account, *, requests: int = 0, tokens: int = 0, slot: bool = False
    ) -> Levels:
        """Take all of it or nothing; see `LimitStore`.

        Raises:
            StoreLostError: Redis failed.
        """
        levels = await self._run(account, requests, tokens, take=account.request_id if slot else "")
        if slot and not levels.refused_by:
            self._hold(account)
        return levels

    async def give_back(self, account: Account, *, tokens: int) -> None:
        """Return tokens and free the slot; see `LimitStore`.

        Raises:
            StoreLostError: Redis failed; the slot will be free when its lease is over.
        """
        self.let_go(account)
        await self._run(account, 0, -tokens, free=account.request_id)

    def let_go(self, account: Account) -> None:
        """Renew the request's slot no more, so that it is free in a while even if Redis cannot be told."""
        held = self._held.get(account.tenant, set())
        held.discard(account.request_id)
        if not held:
            self._held.pop(account.tenant, None)

    async def close(self) -> None:
        """End the renewals and close every connection."""
        if self._renewing:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _run(
        self, account: Account, requests: int, tokens: int, *, take: str = "", free: str = ""
    ) -> Levels:
        limits = account.limits
        sizes = (limits.rpm or 0, limits.tpm or 0, limits.concurrent or 0)
        keys = [_name(account.tenant, part) for part in ("requests", "tokens", "slots")]
        arguments = (WINDOW_S, *sizes, requests, tokens, take, free, self._lease_s)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                refused_by, *levels = await self._take(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise StoreLostError(type(error).__name__) from error
        return Levels(float(levels[0]), float(levels[1]), cast("Limit | None", refused_by or None))

    def _hold(self, account: Account) -> None:
        self._held.setdefault(account.tenant, set()).add(account.request_id)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_held())

    async def _renew_held(self) -> None:
        """Renew the lease of every slot that this replica holds, as long as it holds any."""
        while self._held:
            await asyncio.sleep(self._lease_s / 3)
            for tenant, slots in list(self._held.items()):
                with contextlib.suppress(RedisError, OSError):  # the next round may find it again
                    async with asyncio.timeout(TIMEOUT_S):
                        await self._renew(keys=[_name(tenant, "slots")], args=[self._lease_s, *slots])


def _name(tenant: str, part: str) -> str:
    """Name a key in Redis; what stands in braces keeps a tenant's keys together in a cluster."""
    return f"turnwise:limits:{{{tenant or 'all'}}}:{part}"
