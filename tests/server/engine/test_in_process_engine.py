"""The engine in a thread answers to the same protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.core_driver import new_driver, random_prompt
from turnwise_server.engine.base import Engine, GenerationRequest, SamplingParams
from turnwise_server.engine.in_process_engine import InProcessEngine
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.errors import CheckpointError, EngineDeadError


@pytest.fixture
async def engine(llama_dir: Path) -> AsyncIterator[InProcessEngine]:
    """A started engine."""
    engine = InProcessEngine(
        llama_dir, device="cpu", dtype="float32", threads=1, max_batch=4, kv_memory_mb=64
    )
    await engine.start()
    yield engine
    await engine.close()


def request(prompt: list[int], max_tokens: int = 20) -> GenerationRequest:
    return GenerationRequest("r", tuple(prompt), SamplingParams(max_tokens, temperature=0.0))


def test_both_engines_are_engines(llama_dir: Path) -> None:
    engines: list[Engine] = [ProcessEngine(llama_dir), InProcessEngine(llama_dir)]
    assert all(not engine.stats().is_alive for engine in engines)


async def test_many_at_once_generate_what_each_does_alone(engine: InProcessEngine, llama_dir: Path) -> None:
    prompts = [random_prompt(10 + index, index) for index in range(10)]

    async def run(prompt: list[int]) -> list[int]:
        return [event.token_id async for event in engine.submit(request(prompt))]

    replies = await asyncio.gather(*map(run, prompts))
    driver = new_driver(llama_dir)
    assert replies == [driver.run(prompt) for prompt in prompts]
    assert engine.stats().generated_tokens == 200


async def test_cancel_ends_the_iterator_and_frees_the_slot(engine: InProcessEngine) -> None:
    generations = [engine.submit(request(random_prompt(9, seed), 240)) for seed in range(4)]
    waiting = engine.submit(request(random_prompt(9, 9), 3))
    await anext(generations[0])
    for generation in generations:
        generation.cancel()
    assert [event async for event in generations[1]] == []
    assert len([event async for event in waiting]) == 3


async def test_close_fails_what_runs(engine: InProcessEngine) -> None:
    generation = engine.submit(request(random_prompt(9, 1), 240))
    await anext(generation)
    await engine.close()
    with pytest.raises(EngineDeadError):
        [event async for event in generation]
    with pytest.raises(EngineDeadError):
        engine.submit(request([5]))


async def test_broken_model_is_a_checkpoint_error(tmp_path: Path) -> None:
    engine = InProcessEngine(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        await engine.start()
    await engine.close()
