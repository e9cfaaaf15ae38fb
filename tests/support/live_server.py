"""Runs the installed `turnwise-server` in a process of its own, as its users do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

START_LIMIT_S = 120.0
SERVER = str(Path(sys.executable).with_name("turnwise-server"))


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that has answered /ready at least once."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> list[psutil.Process]:
        """The processes the server has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /ready; status 0 if nobody answers."""
        try:
            reply = httpx2.get(f"{self.url}/ready", timeout=5)
        except httpx2.TransportError:
            return 0, {}
        return reply.status_code, reply.json()

    def chat(self, **body: Any) -> httpx2.Response:
        """POST a chat completion with sensible defaults."""
        content = {
            "model": "test",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 8,
        } | body
        return httpx2.post(f"{self.url}/v1/chat/completions", json=content, timeout=60)

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the server's log so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def live_server(model: Path | None, *flags: str, env: dict[str, str] | None = None) -> Iterator[LiveServer]:
    """Start a server on `model` (None: the starter) under the name "test" and stop it in the end."""
    port = free_port()
    command = [SERVER, "--port", str(port), "--model-name", "test", *flags]
    if model is not None:
        command += ["--model", str(model)]
    with tempfile.TemporaryDirectory() as folder:
        log, data = Path(folder) / "server.log", {"XDG_DATA_HOME": folder}
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=sink, env=os.environ | data | (env or {}))
        server = LiveServer(process, port, log)
        try:
            wait_until(lambda: server.ready()[0] == 200 or process.poll() is not None, START_LIMIT_S)
            if process.poll() is not None:
                raise AssertionError(
                    f"the server ended with {process.returncode}:\n{log.read_text(errors='replace')}"
                )
            yield server
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server politely, then by force, with all it started."""
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        for member in family:
            member.kill()
        process.wait(10)
        raise


def wait_until(condition: Callable[[], bool], limit_s: float, interval_s: float = 0.05) -> float:
    """Poll until `condition()` holds and return the seconds that took; fail after `limit_s`."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > limit_s:
            raise AssertionError(f"not so within {limit_s} s")
        time.sleep(interval_s)
    return time.monotonic() - start


def is_gone(process: psutil.Process) -> bool:
    """Whether the process has ended (a zombie that nobody has reaped has ended too)."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
