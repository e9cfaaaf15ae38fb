"""Limits of a key, with a clock that the test moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.auth import KeyRecord
from turnwise_server.errors import RateLimitError
from turnwise_server.limits.limiter import RateLimiter, unlimited
from turnwise_server.limits.memory_store import MemoryStore
from turnwise_server.limits.rates import NO_LIMITS, RateLimits


@dataclass(slots=True)
class Clock:
    """A clock in seconds."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Limiter:
    """A limiter on a clock of its own."""

    clock: Clock
    limiter: RateLimiter

    async def try_request(self, *, tokens: int = 0, used: int = 0, key: KeyRecord | None = None) -> bool:
        """Make one request that ends at once; say whether it was let in."""
        allowance = self.limiter.allowance(key)
        try:
            await allowance.enter()
            await allowance.reserve(tokens)
        except RateLimitError:
            return False
        finally:
            allowance.use(used)
            await allowance.leave()
        return True


def new_limiter(rpm: int | None = None, tpm: int | None = None, concurrent: int | None = None) -> Limiter:
    clock = Clock()
    return Limiter(clock, RateLimiter(MemoryStore(clock), RateLimits(rpm, tpm, concurrent)))


def key_of(name: str, limits: RateLimits = NO_LIMITS) -> KeyRecord:
    return KeyRecord(name.ljust(64, "0"), name, limits=limits)


async def test_a_minutes_requests_may_come_at_once_and_come_back_evenly() -> None:
    limiter = new_limiter(rpm=6)
    assert [await limiter.try_request() for _ in range(7)] == [True] * 6 + [False]
    limiter.clock.now += 9.9
    assert not await limiter.try_request()
    limiter.clock.now += 0.2
    assert [await limiter.try_request() for _ in range(2)] == [True, False]
    limiter.clock.now += 1e9
    assert [await limiter.try_request() for _ in range(7)] == [True] * 6 + [False]


async def test_a_refusal_says_when_to_come_again_and_costs_nothing() -> None:
    limiter = new_limiter(rpm=60)
    for _ in range(60):
        await limiter.try_request()
    for _ in range(100):
        with pytest.raises(RateLimitError) as refused:
            await limiter.limiter.allowance(None).enter()
        assert (refused.value.kind, refused.value.limit, refused.value.wait_s) == ("requests", 60, 1.0)
    limiter.clock.now += refused.value.wait_s
    assert await limiter.try_request()


async def test_tokens_are_reserved_and_settled_to_what_was_used() -> None:
    limiter = new_limiter(tpm=1000)
    first = limiter.limiter.allowance(None)
    await first.enter()
    await first.reserve(900)
    assert not await limiter.try_request(tokens=200)
    assert await limiter.try_request(tokens=100, used=100)
    first.use(300)
    await first.leave()
    standing = first.tokens()
    assert standing
    assert (standing.limit, standing.remaining, standing.reset_s) == (1000, 100, 54.0)
    assert not await limiter.try_request(tokens=601)
    assert await limiter.try_request(tokens=600)


async def test_what_is_larger_than_the_limit_is_told_never_to_come_again() -> None:
    limiter = new_limiter(tpm=1000)
    allowance = limiter.limiter.allowance(None)
    await allowance.enter()
    with pytest.raises(RateLimitError) as refused:
        await allowance.reserve(1001)
    assert math.isinf(refused.value.wait_s)
    assert await limiter.try_request(tokens=1000)


async def test_slots_are_held_while_requests_run_and_free_when_they_end() -> None:
    limiter = new_limiter(rpm=100, concurrent=2)
    running = [limiter.limiter.allowance(None) for _ in range(2)]
    for allowance in running:
        await allowance.enter()
    with pytest.raises(RateLimitError) as refused:
        await limiter.limiter.allowance(None).enter()
    assert (refused.value.kind, refused.value.wait_s) == ("concurrent", 1.0)
    await running[0].leave()
    await running[0].leave()
    assert [await limiter.try_request() for _ in range(3)] == [True] * 3
    requests = running[0].requests()
    assert requests
    assert requests.remaining == 99, "standing of the moment it entered"


async def test_a_request_that_was_refused_frees_no_slot_of_others() -> None:
    limiter = new_limiter(concurrent=1)
    running, refused = limiter.limiter.allowance(None), limiter.limiter.allowance(None)
    await running.enter()
    with pytest.raises(RateLimitError):
        await refused.enter()
    await refused.leave()
    assert not await limiter.try_request()


async def test_keys_are_counted_apart_and_their_own_limits_go_first() -> None:
    limiter = new_limiter(rpm=2)
    few, many, other = key_of("a", RateLimits(rpm=1)), key_of("b", RateLimits(rpm=4)), key_of("c")
    for key, expected in ((few, 1), (many, 4), (other, 2), (None, 2)):
        assert sum([await limiter.try_request(key=key) for _ in range(10)]) == expected


async def test_without_limits_nothing_is_counted_or_said() -> None:
    for allowance in (unlimited(), new_limiter().limiter.allowance(None)):
        await allowance.enter()
        await allowance.reserve(10**12)
        await allowance.leave()
        assert allowance.requests() is None
        assert allowance.tokens() is None


STEPS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2)),
    min_size=1,
    max_size=60,
)
"""Seconds passed, tokens reserved, the share of them used, and how many steps later the request ends."""


@given(STEPS, st.integers(1, 50))
async def test_no_time_span_ever_sees_more_than_the_limit_and_what_leaked_back(
    steps: list[tuple[float, int, float, int]], limit: int
) -> None:
    limiter = new_limiter(rpm=limit, tpm=limit)
    let_in: list[tuple[float, int]] = []
    open_requests = []
    for place, (pause_s, tokens, share, length) in enumerate(steps):
        limiter.clock.now += pause_s
        allowance = limiter.limiter.allowance(None)
        try:
            await allowance.enter()
            await allowance.reserve(tokens)
        except RateLimitError:
            await allowance.leave()
        else:
            used = round(tokens * share)
            allowance.use(used)
            let_in.append((limiter.clock.now, used))
            open_requests.append((place + length, allowance))
        for end, waiting in list(open_requests):
            if end <= place:
                await waiting.leave()
                open_requests.remove((end, waiting))
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            span = let_in[first : last + 1]
            most = limit * (1 + (span[-1][0] - span[0][0]) / 60) + 1e-6
            assert len(span) <= most
            assert sum(used for _, used in span) <= most


@given(st.integers(1, 1000), st.lists(st.floats(0, 120), max_size=20))
async def test_who_waits_as_told_is_let_in(limit: int, pauses: list[float]) -> None:
    limiter = new_limiter(rpm=limit)
    for pause_s in pauses:
        limiter.clock.now += pause_s
        while await limiter.try_request():
            pass
    try:
        await limiter.limiter.allowance(None).enter()
    except RateLimitError as refused:
        limiter.clock.now += refused.wait_s + 1e-6
        assert await limiter.try_request()
