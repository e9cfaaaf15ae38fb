"""Admission, delivery and figures, without an engine behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from turnwise_server.engine.base import (
    EngineInfo,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    TokenEvent,
)
from turnwise_server.engine.front_desk import FrontDesk
from turnwise_server.engine.generation import PushedGeneration
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate
from turnwise_server.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    QueueFullError,
    RequestError,
)

INFO = EngineInfo(100, 50, "f", "float32", "cpu")


def new_desk(*, batch: int = 2, requests: int = 3, tokens: int | None = None) -> FrontDesk:
    return FrontDesk(batch, requests, tokens, info=INFO)


def request(length: int = 5, sampling: SamplingParams | None = None) -> GenerationRequest:
    return GenerationRequest("r", (1,) * length, sampling or SamplingParams(max_tokens=5))


def ignore(_: int) -> None:
    """Stand for an engine that is told of a cancellation."""


def admit(
    desk: FrontDesk, length: int = 5, cancel: Callable[[int], None] = ignore
) -> tuple[int, PushedGeneration]:
    return desk.admit(request(length), cancel)


def token(key: int, token_id: int, reason: FinishReason | None = None) -> StepResult:
    return StepResult(key, TokenEvent(token_id, reason))


def test_queue_takes_a_batch_and_as_many_as_may_wait_then_refuses() -> None:
    desk = new_desk()
    keys = [admit(desk)[0] for _ in range(5)]
    with pytest.raises(QueueFullError):
        admit(desk)
    desk.deliver(StepUpdate(started=tuple(keys[:2])))
    with pytest.raises(QueueFullError):
        admit(desk)
    desk.deliver(StepUpdate(results=(token(keys[0], 1, FinishReason.STOP),)))
    admit(desk)


def test_queue_is_bounded_by_prompt_tokens_too_but_takes_one_always() -> None:
    desk = new_desk(requests=100, tokens=50)
    admit(desk, 90)
    with pytest.raises(QueueFullError, match="90 prompt tokens"):
        admit(desk, 1)
    desk.deliver(StepUpdate(started=(0,)))
    admit(desk, 40)
    admit(desk, 10)
    with pytest.raises(QueueFullError):
        admit(desk, 1)


def test_eight_contexts_of_prompt_tokens_may_wait_by_default() -> None:
    desk = new_desk(requests=100)
    for _ in range(8):
        admit(desk, 99)
    admit(desk, 8)
    with pytest.raises(QueueFullError):
        admit(desk, 1)


def test_cancelled_requests_leave_the_queue_at_once() -> None:
    desk = new_desk()
    told: list[int] = []
    generations = [admit(desk, cancel=told.append)[1] for _ in range(5)]
    generations[4].cancel()
    generations[4].cancel()
    assert told == [4]
    assert desk.stats(is_alive=True).waiting == 4
    admit(desk)


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        (GenerationRequest("r", (), SamplingParams(5)), "messages"),
        (GenerationRequest("r", (50,), SamplingParams(5)), "messages"),
        (GenerationRequest("r", (-1,), SamplingParams(5)), "messages"),
        (request(5, SamplingParams(0)), "max_tokens"),
        (request(5, SamplingParams(5, logit_bias={50: 1.0})), "logit_bias"),
        (request(5, SamplingParams(5, logit_bias={-1: 1.0})), "logit_bias"),
    ],
    ids=str,
)
def test_what_would_fail_a_step_is_refused(bad: GenerationRequest, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        new_desk().admit(bad, ignore)
    assert caught.value.param == param


@pytest.mark.parametrize("length", [100, 101, 5000])
def test_prompt_that_leaves_no_room_is_refused_with_both_numbers(length: int) -> None:
    with pytest.raises(ContextLengthError) as caught:
        admit(new_desk(), length)
    assert (caught.value.context_length, caught.value.prompt_tokens) == (100, length)
    admit(new_desk(), 99)


async def test_tokens_reach_their_own_generation_in_order() -> None:
    desk = new_desk()
    (one, first), (two, second) = admit(desk), admit(desk)
    desk.deliver(StepUpdate((one, two), (token(one, 10), token(two, 20))))
    desk.deliver(StepUpdate((), (token(two, 21, FinishReason.LENGTH), token(one, 11))))
    desk.deliver(StepUpdate((), (token(one, 12, FinishReason.STOP),)))
    assert [event.token_id async for event in first] == [10, 11, 12]
    assert [event.token_id async for event in second] == [20, 21]


async def test_waiting_reader_wakes_for_the_next_token() -> None:
    desk = new_desk()
    key, generation = admit(desk)
    reader = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    desk.deliver(StepUpdate((key,), (token(key, 7),)))
    assert (await reader).token_id == 7


async def test_cancel_ends_a_waiting_reader_and_drops_what_is_unread() -> None:
    desk = new_desk()
    key, generation = admit(desk)
    desk.deliver(StepUpdate((key,), (token(key, 7),)))
    generation.cancel()
    assert [event async for event in generation] == []
    _, waiting = admit(desk)
    reader = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(StopAsyncIteration):
        await reader


async def test_late_tokens_of_a_cancelled_request_are_ignored() -> None:
    desk = new_desk()
    key, generation = admit(desk)
    generation.cancel()
    desk.deliver(StepUpdate((key,), (token(key, 7),)))
    assert [event async for event in generation] == []
    assert desk.stats(is_alive=True).running == 0


async def test_reader_that_was_cancelled_itself_loses_no_token() -> None:
    desk = new_desk()
    key, generation = admit(desk)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(generation), 0.01)
    desk.deliver(StepUpdate((key,), (token(key, 7),)))
    assert (await anext(generation)).token_id == 7


async def test_failed_step_raises_for_its_request_only() -> None:
    desk = new_desk()
    (one, first), (two, second) = admit(desk), admit(desk)
    desk.deliver(
        StepUpdate((one, two), (StepResult(one, None, "ValueError: x"), token(two, 1, FinishReason.STOP)))
    )
    with pytest.raises(EngineError, match="ValueError: x"):
        await anext(first)
    assert [event.token_id async for event in second] == [1]


async def test_dead_engine_fails_everyone_and_totals_go_on() -> None:
    desk = new_desk()
    key, generation = admit(desk)
    desk.deliver(StepUpdate((key,), (token(key, 1),), CoreCounters(1, 5, 1, 0.5)))
    desk.fail_all(EngineDeadError("gone"))
    with pytest.raises(EngineDeadError):
        await anext(generation)
    desk.deliver(StepUpdate(counters=CoreCounters(0, 3, 2, 0.25)))
    stats = desk.stats(is_alive=True)
    assert (stats.cached_prompt_tokens, stats.prompt_tokens, stats.generated_tokens) == (1, 8, 3)
    assert (stats.kv_cache_usage, stats.running, stats.waiting) == (0.25, 0, 0)


def test_idle_time_does_not_count_as_a_slow_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("turnwise_server.engine.front_desk.time.monotonic", lambda: now)
    desk = new_desk()
    now = 3600.0
    admit(desk)
    assert desk.stats(is_alive=True).seconds_since_step == pytest.approx(0.0)
    now = 3605.0
    assert desk.stats(is_alive=True).seconds_since_step == pytest.approx(5.0)
