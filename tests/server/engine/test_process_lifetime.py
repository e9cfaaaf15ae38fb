"""Who dies with whom: engine processes under real signals, with real parents."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.core_driver import random_prompt
from support.engine_processes import (
    PATIENCE_S,
    engine_processes_of,
    is_running,
    new_engine,
    request,
    tokens_of,
    until,
)
from turnwise_server.engine import front_desk, process_engine
from turnwise_server.engine.process_engine import ProcessEngine
from turnwise_server.errors import CheckpointError, ConfigurationError, EngineDeadError, EngineError

pytestmark = pytest.mark.slow


async def test_killed_process_fails_what_runs_at_once_and_restarts_by_itself(
    llama_dir: Path,
) -> None:
    engine = new_engine(llama_dir)
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
    llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_desk, "_check", lambda *_: None)
    engine = new_engine(llama_dir)
    await engine.start()
    first = engine.pid
    for _ in range(3):
        with pytest.raises(EngineError):
            await anext(engine.submit(request([10**6] * 20)))
    await until(lambda: engine.stats().is_alive and engine.pid != first)
    assert len(await tokens_of(engine, random_prompt(9, 1), 5)) == 5
    await engine.close()


async def test_restarts_are_bounded(llama_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process_engine, "_RESTART_DELAYS_S", (0.0, 0.0))
    model = tmp_path / "model"
    model.symlink_to(llama_dir)
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
    llama_dir: Path,
) -> None:
    engine = ProcessEngine(llama_dir, context_length=10**6)
    with pytest.raises(ConfigurationError, match="allows 256"):
        await engine.start()


async def test_process_killed_while_loading_is_an_error_not_a_hang(llama_dir: Path) -> None:
    before = set(engine_processes_of(os.getpid()))
    engine = new_engine(llama_dir)
    starting = asyncio.ensure_future(engine.start())
    await until(lambda: set(engine_processes_of(os.getpid())) > before)
    [child] = set(engine_processes_of(os.getpid())) - before
    os.kill(child, signal.SIGKILL)
    with pytest.raises(EngineDeadError, match="while it loaded the model"):
        await starting
    await engine.close()


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
async def test_killed_parent_leaves_no_engine_process(llama_dir: Path, moment: str) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PARENT, str(llama_dir), moment], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert await asyncio.to_thread(parent.stdout.readline) == "started\n"
    [child] = engine_processes_of(parent.pid)
    parent.kill()
    await asyncio.to_thread(parent.wait)
    parent.stdout.close()
    await until(lambda: not is_running(child))


async def test_worker_leaves_when_its_socket_closes(llama_dir: Path) -> None:
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
