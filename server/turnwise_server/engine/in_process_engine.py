"""The engine in a thread of this process: for tests and short scripts. A server wants `ProcessEngine`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from turnwise_server.engine.base import EngineInfo, EngineStats, GenerationRequest
from turnwise_server.engine.core import EngineCore
from turnwise_server.engine.front_desk import FrontDesk
from turnwise_server.engine.generation import PushedGeneration
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions
from turnwise_server.engine.updates import StepUpdate
from turnwise_server.errors import EngineDeadError


class InProcessEngine:
    """Implements `Engine` by stepping the core in one worker thread; the arguments are those of `ProcessEngine`."""

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
        threads: int | None = None,
        max_batch: int = 32,
        kv_memory_mb: int | None = None,
        context_length: int | None = None,
        max_queued_requests: int = 64,
        max_queued_tokens: int | None = None,
        prefill_chunk: int = 512,
    ) -> None:
        self._options = EngineOptions(
            model=str(model),
            device=device,
            dtype=dtype,
            quantization=quantization,
            threads=threads,
            max_batch=max_batch,
            kv_memory_mb=kv_memory_mb,
            context_length=context_length,
            prefill_chunk=prefill_chunk,
        )
        self._desk = FrontDesk(max_batch, max_queued_requests, max_queued_tokens)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._inbox: list[Callable[[EngineCore], None]] = []
        self._core: EngineCore | None = None
        self._stepping: asyncio.Task[None] | None = None

    async def start(self) -> EngineInfo:
        """Load the model and return what it is; see `Engine`."""
        loop = asyncio.get_running_loop()
        self._core, info = await loop.run_in_executor(self._thread, load_engine, self._options)
        self._desk.info = info
        return info

    def submit(self, request: GenerationRequest) -> PushedGeneration:
        """Queue a sequence; see `Engine`."""
        self._require_core()
        key, generation = self._desk.admit(request, self._cancel)
        self._tell(lambda core: core.submit(key, request))
        return generation

    def require_room(self, tenant: str) -> None:
        """Refuse where `submit` would; see `Engine`."""
        self._require_core()
        self._desk.require_room(tenant)

    def stats(self) -> EngineStats:
        """Return a snapshot."""
        return self._desk.stats(is_alive=self._core is not None)

    async def close(self) -> None:
        """End the thread. Sequences still running raise EngineDeadError."""
        self._core = None
        self._desk.fail_all(EngineDeadError("The engine was closed."))
        if self._stepping:
            await self._stepping
        self._thread.shutdown()

    def _require_core(self) -> None:
        if self._core is None:
            raise EngineDeadError("The engine is not running.")

    def _cancel(self, key: int) -> None:
        self._tell(lambda core: core.cancel(key))

    def _tell(self, command: Callable[[EngineCore], None]) -> None:
        self._inbox.append(command)
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.get_running_loop().create_task(self._step_while_needed())

    async def _step_while_needed(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._core and (self._inbox or self._core.has_work):
                commands, self._inbox = self._inbox, []
                self._desk.deliver(await loop.run_in_executor(self._thread, _advance, self._core, commands))
        except Exception:
            self._core = None
            self._desk.fail_all(EngineDeadError("The engine has failed; the reply is lost."))
            raise


def _advance(core: EngineCore, commands: list[Callable[[EngineCore], None]]) -> StepUpdate:
    for command in commands:
        command(core)
    return core.step() if core.has_work else StepUpdate(counters=core.counters())
