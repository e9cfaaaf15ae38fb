"""Engine processes for tests: small ones, what they are asked, and who is still alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from turnwise_server.engine.base import GenerationRequest, SamplingParams
from turnwise_server.engine.process_engine import ProcessEngine

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


def engine_processes_of(pid: int) -> list[int]:
    """Return the engine processes among a process's children."""
    commands: dict[int, bytes] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # threads and children may end while we look
            for child in (task / "children").read_text().split():
                commands[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes()
    return [child for child, command in commands.items() if b"turnwise_server.engine.worker" in command]
