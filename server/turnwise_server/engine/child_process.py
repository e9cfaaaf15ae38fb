"""Starts an engine process and speaks with it from an event loop, without ever blocking the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict

from turnwise_server.engine.base import EngineInfo
from turnwise_server.engine.messages import FrameReader, Message, decode_info, decode_update, frame
from turnwise_server.engine.options import EngineOptions
from turnwise_server.engine.updates import StepUpdate
from turnwise_server.errors import CheckpointError, ConfigurationError, EngineDeadError, TurnwiseError

_EXIT_TIMEOUT_S = 5.0
_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for each other spin for long by default, and so starve whatever else runs, the server's own
    # process first. On busy cores this was measured 5 to 8 times faster, on idle ones 5-15% slower.
    "GOMP_SPINCOUNT": "1000",
    # Kernels of matrix products are kept by shape, 1024 of them in each of two caches, and shapes change with every
    # batch: memory grew by hundreds of MiB over a thousand requests (docs/lab-log.md). Fewer were not slower.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}
"""What the engine process is started with, unless the environment says otherwise."""


class ChildProcess(asyncio.Protocol):
    """One engine process, from its start to its end."""

    def __init__(
        self, on_update: Callable[[StepUpdate], None], on_end: Callable[[ChildProcess], None]
    ) -> None:
        self._on_update = on_update
        self._on_end = on_end
        self._reader = FrameReader()
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.has_ended = False

    async def start(self, options: EngineOptions) -> EngineInfo:
        """Start the process, load the model and return what it is.

        Raises:
            ConfigurationError: the model cannot be loaded as told.
            EngineDeadError: the process ended while loading.
        """
        ours, theirs = socket.socketpair()
        # Not in a thread: the kernel kills the child when the thread that started it ends.
        command = [sys.executable, "-P", "-m", "turnwise_server.engine.worker"]
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - takes milliseconds; our own interpreter and module
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_ENVIRONMENT | os.environ,
            )
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
            self.send(["load", asdict(options)])
            info = await self._ready
            if self.has_ended:
                raise EngineDeadError("The engine process ended as soon as it had loaded the model.")
        except BaseException:
            if self._transport is None:
                ours.close()
            await self.stop()
            raise
        return info

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process is not None
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message without waiting."""
        assert self._transport is not None
        self._transport.write(frame(message))

    async def stop(self) -> None:
        """End the process: it leaves when the socket closes, and is killed if it does not."""
        if self._transport:
            self._transport.close()
        if self._process:
            await asyncio.to_thread(_reap, self._process)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; called by asyncio."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Handle what the process says; called by asyncio."""
        for message in self._reader.feed(data):
            if message[0] == "step":
                self._on_update(decode_update(message))
            elif not self._ready.done():
                self._finish_loading(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the process has ended; called by asyncio."""
        del exc
        self.has_ended = True
        if not self._ready.done():
            self._ready.set_exception(
                EngineDeadError(
                    "The engine process ended while it loaded the model. Its last words are on standard error; "
                    "if there are none, the machine may have too little memory for the model."
                )
            )
        self._on_end(self)

    def _finish_loading(self, message: Message) -> None:
        if message[0] == "ready":
            self._ready.set_result(decode_info(message))
        else:
            kind: type[TurnwiseError] = CheckpointError if message[1] == "checkpoint" else ConfigurationError
            self._ready.set_exception(kind(message[2]))


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
