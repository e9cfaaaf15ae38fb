"""The engine's own process: loads a model, then steps while there is work and reports each step to its parent.

It ends with its parent, whatever ends that: by a signal from the kernel on Linux, by the end of the socket elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from turnwise_server.engine.messages import (
    FrameReader,
    Message,
    decode_request,
    encode_info,
    encode_update,
    frame,
)
from turnwise_server.engine.options import EngineOptions
from turnwise_server.engine.updates import StepUpdate
from turnwise_server.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from turnwise_server.engine.core import EngineCore

_PR_SET_PDEATHSIG = 1
_MAX_FAILED_STEPS = 3
"""So many failed steps in a row mean a broken process (a lost GPU, say): a new one may do better."""


class _Inbox:
    """Messages from the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = FrameReader()

    def receive(self, *, wait: bool) -> list[Message] | None:
        """Return what has arrived, waiting for something if told; None once the parent has closed."""
        messages: list[Message] = []
        while True:
            try:
                data = self._connection.recv(1 << 16, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            if not data:
                return None
            messages += self._reader.feed(data)
            wait = not messages


def main() -> None:
    """Run as `python -m turnwise_server.engine.worker SOCKET_FD PARENT_PID`; the first message is `load`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _end_with(parent)
    connection = socket.socket(fileno=descriptor)
    inbox = _Inbox(connection)
    first = inbox.receive(wait=True)
    if not first:
        return
    # The parent may close at any moment; there is nobody left to tell then.
    with suppress(ConnectionError):
        core = _load(EngineOptions(**first[0][1]), connection)
        if core:
            _serve(core, connection, inbox)
    # The kernel frees the model at once; the interpreter would take a second over it.
    os._exit(0)


def _load(options: EngineOptions, connection: socket.socket) -> EngineCore | None:
    """Load the model and say so, or say why not."""
    from turnwise_server.engine.loading import load_engine

    try:
        core, info = load_engine(options)
    except ConfigurationError as error:
        kind = "checkpoint" if isinstance(error, CheckpointError) else "configuration"
        connection.sendall(frame(["failed", kind, str(error)]))
        return None
    connection.sendall(frame(encode_info(info)))
    return core


def _serve(core: EngineCore, connection: socket.socket, inbox: _Inbox) -> None:
    failed_steps = 0
    while (messages := inbox.receive(wait=not core.has_work)) is not None:
        for message in messages:
            _obey(core, message)
        update = core.step() if core.has_work else StepUpdate(counters=core.counters())
        connection.sendall(frame(encode_update(update)))
        has_failed = any(result.event is None and not result.is_grammar_fault for result in update.results)
        failed_steps = failed_steps + 1 if has_failed else 0
        if failed_steps == _MAX_FAILED_STEPS:
            sys.exit(f"the engine process ends: {failed_steps} steps in a row have failed")


def _obey(core: EngineCore, message: Message) -> None:
    if message[0] == "submit":
        core.submit(*decode_request(message))
    elif message[0] == "cancel":
        core.cancel(message[1])
    else:
        raise ValueError(f"unknown message {message[0]!r}")


def _end_with(parent: int) -> None:
    """Ask the kernel for a SIGKILL when the parent's thread ends; leave at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the engine process ends: its parent has ended")


if __name__ == "__main__":
    main()
