"""Every engine says when a sequence was queued and started, and when each of its tokens came."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from turnwise_server.engine.base import Engine, EngineInfo, GenerationRequest, SamplingParams, TokenEvent
from turnwise_server.engine.fake_engine import FakeEngine
from turnwise_server.engine.front_desk import FrontDesk
from turnwise_server.engine.in_process_engine import InProcessEngine
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.engine.timeline import Timeline
from turnwise_server.engine.updates import StepResult, StepUpdate


def request() -> GenerationRequest:
    return GenerationRequest("r", (3,) * 5, SamplingParams(max_tokens=4, temperature=0.0))


def test_a_sequence_starts_when_its_step_began_not_when_that_was_reported() -> None:
    desk = FrontDesk(2, 3, None, info=EngineInfo(100, 50, "f", "float32", "cpu"))
    key, generation = desk.admit(request(), lambda _: None)
    waiting = desk.admit(request(), lambda _: None)[1]
    time.sleep(0.03)
    desk.deliver(StepUpdate((key,), (StepResult(key, TokenEvent(7)),), seconds=0.02))
    timeline = generation.timeline
    assert timeline.started is not None
    assert timeline.started - timeline.queued >= 0.01 - 1e-3
    assert timeline.tokens[0] - timeline.started == pytest.approx(0.02, abs=5e-3)
    assert waiting.timeline.started is None
    assert not waiting.timeline.tokens


def test_the_first_start_counts_and_none_comes_before_the_queue() -> None:
    timeline = Timeline()
    timeline.mark_start(seconds_ago=60)
    timeline.mark_start()
    assert timeline.started == timeline.queued


@pytest.mark.parametrize("kind", ["fake", "in_process", "process"])
async def test_every_engine_keeps_the_moments_in_order(kind: str, llama_dir: Path) -> None:
    engine: Engine
    if kind == "fake":
        engine = FakeEngine([[5, 6, 7, 8]], vocab_size=50, stop_token_ids=frozenset({2}), max_batch=1)
    else:
        make = InProcessEngine if kind == "in_process" else ProcessEngine
        engine = make(llama_dir, device="cpu", threads=1, max_batch=1, kv_memory_mb=64)
    await engine.start()
    try:
        generations = [engine.submit(request()) for _ in range(2)]
        for generation in generations:
            assert len([event async for event in generation]) == 4
    finally:
        await engine.close()
    first, second = (generation.timeline for generation in generations)
    for timeline in (first, second):
        assert timeline.started is not None
        moments = [timeline.queued, timeline.started, *timeline.tokens]
        assert moments == sorted(moments)
        assert len(timeline.tokens) == 4
    assert second.started is not None
    assert first.started is not None
    # Not after the first one's last token: a busy parent may learn of several steps in one read.
    assert second.started > first.started, "one place: the second waits for the first"
