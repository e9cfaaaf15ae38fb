"""The engine in a process of its own generates what it should, for many at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.core_driver import random_prompt
from support.engine_processes import new_engine, request, tokens_of, until
from support.tiny_models import Family, greedy_reference, tiny_model
from turnwise_server.engine import front_desk
from turnwise_server.engine.base import FinishReason, GenerationRequest, SamplingParams
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.errors import EngineDeadError, EngineError, QueueFullError

# One event loop for all, so that the tests that leave the engine alive can share it.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(checkpoints: dict[Family, Path]) -> AsyncIterator[ProcessEngine]:
    """An engine that every test leaves alive."""
    engine = new_engine(checkpoints["llama"])
    info = await engine.start()
    assert (info.context_length, info.vocab_size, info.dtype, info.device) == (256, 300, "float32", "cpu")
    yield engine
    await engine.close()


async def test_forty_at_once_generate_what_transformers_does(engine: ProcessEngine) -> None:
    model = tiny_model("llama")
    prompts = [random_prompt(5 + index, index) for index in range(40)]
    replies = await asyncio.gather(*(tokens_of(engine, prompt) for prompt in prompts))
    assert replies == [greedy_reference(model, prompt, 20) for prompt in prompts]
    stats = engine.stats()
    assert (stats.is_alive, stats.running, stats.waiting, stats.restarts) == (True, 0, 0, 0)
    assert stats.generated_tokens >= 800
    assert stats.prompt_tokens >= sum(map(len, prompts))
    assert stats.kv_cache_usage == 0.0


async def test_events_say_what_was_cached_and_why_it_ended(engine: ProcessEngine) -> None:
    prompt = random_prompt(70, 700)
    await tokens_of(engine, prompt)
    events = [event async for event in engine.submit(request(prompt, 5))]
    assert [event.cached_tokens for event in events] == [69] * 5
    assert [event.finish_reason for event in events] == [None] * 4 + [FinishReason.LENGTH]


async def test_logprobs_cross_the_process_border(engine: ProcessEngine) -> None:
    params = SamplingParams(max_tokens=3, temperature=0.0, top_logprobs=2)
    generation = engine.submit(GenerationRequest("r", (5, 6, 7), params))
    for event in [event async for event in generation]:
        assert event.logprobs is not None
        assert event.logprobs.top[0] == (event.token_id, event.logprobs.logprob)
        assert event.logprobs.top[0][1] >= event.logprobs.top[1][1]


async def test_cancel_frees_the_slot_and_ends_the_iterator(engine: ProcessEngine) -> None:
    generations = [engine.submit(request(random_prompt(9, seed), 240)) for seed in range(8)]
    waiting = engine.submit(request(random_prompt(9, 99), 3))
    await anext(generations[0])
    for generation in generations:
        generation.cancel()
    assert [event async for event in generations[0]] == []
    assert len([event async for event in waiting]) == 3
    await until(lambda: engine.stats().kv_cache_usage == 0.0)
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


async def test_terminal_signals_do_not_end_the_process(engine: ProcessEngine) -> None:
    assert engine.pid is not None
    generation = engine.submit(request(random_prompt(9, 1), 100))
    await anext(generation)
    os.kill(engine.pid, signal.SIGINT)
    os.kill(engine.pid, signal.SIGTERM)
    assert len([event async for event in generation]) == 99


async def test_fault_in_a_step_fails_its_request_and_no_other(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_desk, "_check", lambda *_: None)
    healthy = engine.submit(request(random_prompt(9, 1), 60))
    await anext(healthy)
    broken = engine.submit(request([10**6] * 20))
    with pytest.raises(EngineError, match="The engine failed while generating: IndexError") as caught:
        await anext(broken)
    assert not isinstance(caught.value, EngineDeadError)
    assert len([event async for event in healthy]) == 59


async def test_full_queue_refuses_at_once(checkpoints: dict[Family, Path]) -> None:
    engine = new_engine(checkpoints["llama"], max_batch=1, max_queued_requests=2)
    await engine.start()
    generations = [engine.submit(request(random_prompt(9, seed), 200)) for seed in range(3)]
    with pytest.raises(QueueFullError):
        engine.submit(request(random_prompt(9, 9)))
    generations[2].cancel()
    engine.submit(request(random_prompt(9, 9), 1))
    await engine.close()
    with pytest.raises(EngineDeadError, match="closed"):
        await anext(generations[0])
    with pytest.raises(EngineDeadError, match="not running"):
        engine.submit(request([5]))
    assert engine.pid is None


async def test_event_loop_is_never_blocked(engine: ProcessEngine) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    watcher = asyncio.ensure_future(watch())
    await asyncio.gather(*(tokens_of(engine, random_prompt(20, seed), 10) for seed in range(60)))
    watcher.cancel()
    # Of this thread's own work, so that a loaded machine does not count.
    assert longest < 0.1
