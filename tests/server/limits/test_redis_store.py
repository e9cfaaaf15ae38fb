"""Limits that replicas share in a real Redis server, and what happens when it goes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from support.redis_server import RedisServer, needs_redis, redis_server
from turnwise_server.errors import ConfigurationError, RateLimitError
from turnwise_server.limits.fallback_store import FallbackStore
from turnwise_server.limits.limiter import Allowance, RateLimiter
from turnwise_server.limits.memory_store import MemoryStore
from turnwise_server.limits.rates import RateLimits
from turnwise_server.limits.redis_store import RedisStore, StoreLostError
from turnwise_server.limits.store import Account

pytestmark = needs_redis


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(module_redis: RedisServer) -> RedisServer:
    """An empty Redis server."""
    with module_redis.client() as client:
        client.flushall()
    return module_redis


@pytest_asyncio.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    async with open_store(redis) as opened:
        yield opened


@asynccontextmanager
async def open_store(redis: RedisServer, *, lease_s: float = 30) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis.url, lease_s=lease_s)
    try:
        yield opened
    finally:
        await opened.close()


def account(
    request_id: str = "r", *, rpm: int | None = None, tpm: int | None = None, concurrent: int | None = None
) -> Account:
    return Account("key", RateLimits(rpm, tpm, concurrent), request_id)


async def enters(allowance: Allowance) -> bool:
    try:
        await allowance.enter()
    except RateLimitError:
        return False
    return True


async def test_it_decides_as_the_store_in_memory_does(store: RedisStore) -> None:
    """Amounts are so large beside what leaks in a second that a slow machine decides alike."""
    memory = MemoryStore(lambda: 0.0)
    refusals = set()
    for step in range(60):
        asked = account(str(step), rpm=1000, tpm=10_000, concurrent=5)
        taken = {"requests": 100, "tokens": step % 4 * 1000, "slot": step % 2 == 0}
        expected = await memory.take(asked, **taken)  # type: ignore[arg-type]  # of three types
        found = await store.take(asked, **taken)  # type: ignore[arg-type]
        assert found.refused_by == expected.refused_by
        refusals.add(expected.refused_by)
        if step % 5 == 0:
            for each in (memory, store):
                await each.give_back(asked, tokens=1000)
    assert refusals == {None, "requests", "tokens", "concurrent"}


async def test_two_replicas_share_one_limit_to_the_last_request(redis: RedisServer) -> None:
    async with open_store(redis) as first, open_store(redis) as second:
        limiters = [RateLimiter(each, RateLimits(rpm=20)) for each in (first, second)]
        tries = [enters(limiters[number % 2].allowance(None)) for number in range(60)]
        assert sum(await asyncio.gather(*tries)) == 20


async def test_what_was_taken_comes_back_with_time(store: RedisStore) -> None:
    fast = account(rpm=600)
    assert not (await store.take(fast, requests=600)).refused_by
    assert (await store.take(fast, requests=600)).refused_by == "requests"
    await asyncio.sleep(0.25)
    assert not (await store.take(fast, requests=2)).refused_by


async def test_no_key_stays_in_redis_for_ever(store: RedisStore, redis: RedisServer) -> None:
    await store.take(account(rpm=5, tpm=5, concurrent=1), requests=1, tokens=1, slot=True)
    with redis.client() as client:
        names = sorted(client.keys())
        assert names == [f"turnwise:limits:{{key}}:{part}" for part in ("requests", "slots", "tokens")]
        assert all(0 < client.ttl(name) <= 60 for name in names)


async def test_slots_of_a_replica_that_was_killed_are_free_after_their_lease(redis: RedisServer) -> None:
    async with open_store(redis, lease_s=0.3) as living, open_store(redis, lease_s=0.3) as dead:
        assert not (await dead.take(account("dead", concurrent=2), slot=True)).refused_by
        assert not (await living.take(account("long", concurrent=2), slot=True)).refused_by
        await dead.close()
        assert (await living.take(account("new", concurrent=2), slot=True)).refused_by == "concurrent"
        await asyncio.sleep(0.7)
        assert not (await living.take(account("new", concurrent=2), slot=True)).refused_by
        more = await living.take(account("more", concurrent=2), slot=True)
        assert more.refused_by == "concurrent", "a living replica renews its slots"
        for name in ("long", "new"):
            await living.give_back(account(name, concurrent=2), tokens=0)
        assert not (await living.take(account("more", concurrent=2), slot=True)).refused_by


async def test_a_redis_that_lost_its_scripts_and_counts_starts_anew(
    store: RedisStore, redis: RedisServer
) -> None:
    assert (await store.take(account(rpm=1), requests=1)).refused_by is None
    with redis.client() as client:
        client.flushall()
        client.script_flush()
    assert (await store.take(account(rpm=1), requests=1)).refused_by is None


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", "redis://localhost:port/0"])
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis_url") as refused:
        RedisStore(url)
    assert not url or url not in str(refused.value).replace("redis://localhost:6379/0", "")


async def test_a_redis_that_is_not_there_is_an_error_at_once() -> None:
    store = RedisStore("redis://127.0.0.1:1/0")
    with pytest.raises(StoreLostError, match="ConnectionError"):
        await store.take(account(rpm=1), requests=1)
    await store.close()


async def test_a_redis_that_hangs_costs_one_request_half_a_second_and_the_others_nothing() -> None:
    with capture_logs() as log_lines, redis_server() as redis:
        store = FallbackStore(RedisStore(redis.url))
        assert redis.process
        await store.take(account(rpm=10), requests=1)
        os.kill(redis.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        assert not (await store.take(account(rpm=10), requests=1)).refused_by
        first_s = time.monotonic() - started
        for _ in range(9):
            assert not (await store.take(account(rpm=10), requests=1)).refused_by
        assert (await store.take(account(rpm=10), requests=1)).refused_by == "requests"
        assert 0.4 < first_s < 1.5
        assert time.monotonic() - started - first_s < 0.4
        assert store.is_lost
        os.kill(redis.process.pid, signal.SIGCONT)
        await store.close()
    assert [line["event"] for line in log_lines] == ["rate_limit_store_lost"]


async def test_a_redis_that_comes_back_is_used_again() -> None:
    now = 0.0
    with capture_logs() as log_lines, redis_server() as redis:
        store = FallbackStore(RedisStore(redis.url), clock=lambda: now)
        assert not (await store.take(account("a", tpm=10, concurrent=9), tokens=8, slot=True)).refused_by
        redis.kill()
        assert not (await store.take(account("b", tpm=10, concurrent=9), tokens=8, slot=True)).refused_by
        await store.give_back(account("a", tpm=10, concurrent=9), tokens=8)
        assert store.failures == 1, "a lost store is left alone for a while"
        redis.start()
        now += 10
        assert not (await store.take(account("c", tpm=10, concurrent=9), tokens=10, slot=True)).refused_by
        assert not store.is_lost
        await store.give_back(account("b", tpm=10, concurrent=9), tokens=8)
        again = await store.take(account("d", tpm=10, concurrent=9), tokens=10)
        assert again.refused_by == "tokens", "tokens that were counted locally are not given back to Redis"
        await store.close()
    assert [line["event"] for line in log_lines] == ["rate_limit_store_lost", "rate_limit_store_found"]


async def test_a_slot_is_renewed_no_more_once_its_request_has_ended_while_redis_was_lost() -> None:
    with capture_logs(), redis_server() as redis:
        shared = RedisStore(redis.url, lease_s=0.3)
        store = FallbackStore(shared)
        assert redis.process
        await store.take(account("a", concurrent=1), slot=True)
        os.kill(redis.process.pid, signal.SIGSTOP)
        await store.take(account("b", tpm=5), tokens=1)
        await store.give_back(account("a", concurrent=1), tokens=0)
        os.kill(redis.process.pid, signal.SIGCONT)
        await asyncio.sleep(0.4)
        assert not (await shared.take(account("c", concurrent=1), slot=True)).refused_by
        await store.close()
