"""The engine in a process of its own. This module runs in the server's process and imports no torch."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from turnwise_server.engine.base import EngineInfo, EngineStats, GenerationRequest
from turnwise_server.engine.child_process import ChildProcess
from turnwise_server.engine.front_desk import FrontDesk
from turnwise_server.engine.generation import PushedGeneration
from turnwise_server.engine.messages import encode_request
from turnwise_server.engine.options import EngineOptions
from turnwise_server.errors import EngineDeadError, TurnwiseError

logger = logging.getLogger(__name__)

_RESTART_DELAYS_S = (0.2, 1.0, 2.0, 4.0, 8.0)
"""Waited before each restart in a row; after the last the engine stays dead."""

_STEADY_S = 60.0
"""A process that served this long starts the row of delays anew."""


class ProcessEngine:
    """Implements `Engine` with a child process that generates with continuous batching.

    Args:
        model: directory of a Hugging Face causal language model, or its name on the hub.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 where the hardware computes with it, else float32), or one of them, or float16.
        quantization: "none", or "int8" to keep matrices as 8-bit integers, on a CPU.
        threads: of torch in the engine process; by default one for each physical core.
        max_batch: how many sequences run at once.
        kv_memory_mb: budget of the key-value cache in MiB; by default what it could ever use, up to 30% of the
            machine's free memory (80% of a GPU's).
        context_length: at most this many tokens a sequence, prompt included; by default what the model allows.
        max_queued_requests: how many requests may wait.
        max_queued_tokens: how many prompt tokens may wait; by default eight contexts full.
        prefill_chunk: at most this many prompt tokens are computed between two decode steps.
        restart: start a new process when this one dies.
    """

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
        restart: bool = True,
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
        self._may_restart = restart
        self._child: ChildProcess | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._attempts = 0
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Return the engine process's id, None while there is none."""
        return self._child.pid if self._child else None

    async def start(self) -> EngineInfo:
        """Start the process, load the model and return what it is.

        Raises:
            CheckpointError: the model directory cannot be served; the message names the file and the remedy.
            ConfigurationError: an option does not fit the machine or the model.
            EngineDeadError: the process ended while loading.
        """
        child = ChildProcess(self._desk.deliver, self._on_end)
        info = await child.start(self._options)
        self._child, self._desk.info, self._started_at = child, info, time.monotonic()
        return info

    def submit(self, request: GenerationRequest) -> PushedGeneration:
        """Queue a sequence; see `Engine`.

        Raises:
            RequestError: the request asks for what the model cannot do.
            QueueFullError: the queue holds as many requests or tokens as it may.
            EngineDeadError: the engine is not running.
        """
        child = self._living_child()
        key, generation = self._desk.admit(request, self._cancel)
        child.send(encode_request(key, request))
        return generation

    def require_room(self, tenant: str) -> None:
        """Refuse where `submit` would; see `Engine`."""
        self._living_child()
        self._desk.require_room(tenant)

    def stats(self) -> EngineStats:
        """Return a snapshot without asking the process."""
        return self._desk.stats(is_alive=self._child is not None)

    async def close(self) -> None:
        """End the process. Sequences still running raise EngineDeadError."""
        self._may_restart = False
        if self._restarting:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        child, self._child = self._child, None
        self._desk.fail_all(EngineDeadError("The engine was closed."))
        if child:
            await child.stop()

    def _living_child(self) -> ChildProcess:
        if self._child is None:
            raise EngineDeadError("The engine is not running.")
        return self._child

    def _cancel(self, key: int) -> None:
        if self._child:
            self._child.send(["cancel", key])

    def _on_end(self, child: ChildProcess) -> None:
        if child is not self._child:
            return
        self._child = None
        self._desk.fail_all(EngineDeadError("The engine process has ended; the reply is lost."))
        logger.error("engine process %d has ended", child.pid)
        self._restarting = asyncio.get_running_loop().create_task(self._recover(child))

    async def _recover(self, dead: ChildProcess) -> None:
        """Bury the dead process and start another, with growing pauses."""
        await dead.stop()
        if time.monotonic() - self._started_at > _STEADY_S:
            self._attempts = 0
        while self._may_restart and self._child is None and self._attempts < len(_RESTART_DELAYS_S):
            await asyncio.sleep(_RESTART_DELAYS_S[self._attempts])
            self._attempts += 1
            try:
                await self.start()
            except TurnwiseError as error:
                logger.error("the engine did not restart: %s", error)
            else:
                self._desk.restarts += 1
                logger.warning("the engine process was restarted as %d", self.pid)
