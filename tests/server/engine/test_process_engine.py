"""The engine in a process of its own, with real processes and real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from support.core_driver import random_prompt
from support.tiny_models import Family, greedy_reference, tiny_model
from turnwise_server.engine import front_desk, process_engine
from turnwise_server.engine.base import FinishReason, GenerationRequest, SamplingParams
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.errors import (
    CheckpointError,
    ConfigurationError,
    EngineDeadError,
    EngineError,
    QueueFullError,
)

# One event loop for all, so that the tests that leave the engine alive can share it.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PATIENCE_S = 400.0
"""Generous: a loaded machine is not a fault."""


def new_engine(model: Path, *, max_batch: int = 8, max_queued_requests: int = 64) -> ProcessEngine:
    return ProcessEngine(
        model,
        device="cpu",
        dtype="float32",
        threads=1,
        max_batch=max_batch,
        kv_memory_mb=64,
        max_queued_requests=max_queued_requests,
        prefill_chunk=32,
    )


def request(prompt: list[int], max_tokens: int = 20, tenant: str = "") -> GenerationRequest:
    return GenerationRequest("r", tuple(prompt), SamplingParams(max_tokens, temperature=0.0), tenant)


async def tokens_of(engine: ProcessEngine, prompt: list[int], max_tokens: int = 20) -> list[int]:
    return [event.token_id async for event in engine.submit(request(prompt, max_tokens))]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


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


async def test_killed_process_fails_what_runs_at_once_and_restarts_by_itself(
    checkpoints: dict[Family, Path],
) -> None:
    engine = new_engine(checkpoints["llama"])
    await engine.start()
    expected = await tokens_of(engine, random_prompt(30, 1))
    running = [engine.submit(request(random_prompt(9, seed), 240)) for seed in range(10)]
    await anext(running[0])
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for generation in running:
        with pytest.raises(EngineDeadError):
            async with asyncio.timeout(10):
                [event async for event in generation]
    assert not engine.stats().is_alive
    with pytest.raises(EngineDeadError):
        engine.submit(request([5]))
    await until(lambda: engine.stats().is_alive)
    assert engine.stats().restarts == 1
    assert engine.pid not in (None, first)
    assert await tokens_of(engine, random_prompt(30, 1)) == expected
    assert engine.stats().generated_tokens >= 40
    await engine.close()
    assert not is_running(first)


async def test_process_whose_steps_keep_failing_is_replaced(
    checkpoints: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_desk, "_check", lambda *_: None)
    engine = new_engine(checkpoints["llama"])
    await engine.start()
    first = engine.pid
    for _ in range(3):
        with pytest.raises(EngineError):
            await anext(engine.submit(request([10**6] * 20)))
    await until(lambda: engine.stats().is_alive and engine.pid != first)
    assert len(await tokens_of(engine, random_prompt(9, 1), 5)) == 5
    await engine.close()


async def test_restarts_are_bounded(
    checkpoints: dict[Family, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_engine, "_RESTART_DELAYS_S", (0.0, 0.0))
    model = tmp_path / "model"
    model.symlink_to(checkpoints["llama"])
    engine = new_engine(model)
    await engine.start()
    model.unlink()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine._restarting is not None and engine._restarting.done())
    assert not engine.stats().is_alive
    assert engine.stats().restarts == 0
    await engine.close()


async def test_broken_model_arrives_as_the_same_error(tmp_path: Path) -> None:
    engine = new_engine(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"config\.json is missing\. Give a directory made by save_pretrained"
    ):
        await engine.start()
    assert not engine.stats().is_alive
    with pytest.raises(EngineDeadError):
        engine.submit(request([5]))
    await engine.close()


async def test_option_that_does_not_fit_arrives_as_configuration_error(
    checkpoints: dict[Family, Path],
) -> None:
    engine = ProcessEngine(checkpoints["llama"], context_length=10**6)
    with pytest.raises(ConfigurationError, match="allows 256"):
        await engine.start()


async def test_process_killed_while_loading_is_an_error_not_a_hang(checkpoints: dict[Family, Path]) -> None:
    before = set(_children(os.getpid()))
    engine = new_engine(checkpoints["llama"])
    starting = asyncio.ensure_future(engine.start())
    await until(lambda: set(_children(os.getpid())) > before)
    [child] = set(_children(os.getpid())) - before
    os.kill(child, signal.SIGKILL)
    with pytest.raises(EngineDeadError, match="while it loaded the model"):
        await starting
    await engine.close()


def _children(pid: int) -> list[int]:
    """Return the engine processes among a process's children."""
    children = [
        pid for task in Path(f"/proc/{pid}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in commands.items() if b"turnwise_server.engine.worker" in command]


PARENT = textwrap.dedent("""
    import asyncio, sys
    from turnwise_server.engine.base import GenerationRequest, SamplingParams
    from turnwise_server.engine.process_engine import ProcessEngine

    async def main():
        engine = ProcessEngine(sys.argv[1], device="cpu", dtype="float32", threads=1, kv_memory_mb=64)
        if sys.argv[2] == "loading":
            asyncio.get_running_loop().call_later(1.0, lambda: print("started", flush=True))
        await engine.start()
        assert "torch" not in sys.modules and "transformers" not in sys.modules
        generation = engine.submit(GenerationRequest("r", (5, 6), SamplingParams(200, temperature=0.0)))
        await anext(generation)
        print("started", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
""")


@pytest.mark.parametrize("moment", ["generating", "loading"])
async def test_killed_parent_leaves_no_engine_process(checkpoints: dict[Family, Path], moment: str) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PARENT, str(checkpoints["llama"]), moment], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert await asyncio.to_thread(parent.stdout.readline) == "started\n"
    [child] = _children(parent.pid)
    parent.kill()
    await asyncio.to_thread(parent.wait)
    parent.stdout.close()
    await until(lambda: not is_running(child))


async def test_worker_leaves_when_its_socket_closes(checkpoints: dict[Family, Path]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        worker = subprocess.Popen(  # noqa: ASYNC220
            [
                sys.executable,
                "-P",
                "-m",
                "turnwise_server.engine.worker",
                str(theirs.fileno()),
                str(os.getpid()),
            ],
            pass_fds=[theirs.fileno()],
        )
    await asyncio.sleep(0.1)
    assert worker.poll() is None
    ours.close()
    assert await asyncio.to_thread(worker.wait, PATIENCE_S) == 0


async def test_worker_of_a_parent_that_is_gone_leaves_at_once() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        worker = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-P", "-m", "turnwise_server.engine.worker", str(theirs.fileno()), "1"],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.DEVNULL,
        )
    assert await asyncio.to_thread(worker.wait, PATIENCE_S) == 1
    ours.close()


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
