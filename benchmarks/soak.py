"""Soaks a running server: many streamed requests at once, of which many are left early. Prints one JSON object.

Starts `turnwise-server`, sends 1,000 requests over 64 connections, leaves two in five of them somewhere before their
end (politely or with a reset, before the first byte or in mid-stream), and then looks: no slot and no connection may
have leaked, no status but 200 and 503 with `retry-after` may have come, every stream that was read to its end must end
properly, and resident memory must stay within 5% over the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from serving import BUSY_SHARE, exchange, free_port, running_server, wait_until_ready

MEMORY_BAR = 0.05
FREED_WITHIN_S = 3.0
SAMPLE_EVERY_S = 0.25
END_OF_REPLY = b"0\r\n\r\n"
WORDS = ("river", "stone", "letter", "garden", "seven", "quiet", "window", "music", "answer", "bridge")


@dataclass(slots=True)
class Observations:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    started: int = 0
    memory_mib: list[tuple[int, float, float]] = field(default_factory=list)
    """How many requests had been started, and the resident memory of the server and of its engine process then."""


class Client:
    """One connection, used again as long as replies are read to their end."""

    def __init__(self, port: int, chance: random.Random, seen: Observations, *, max_tokens: int) -> None:
        self._port = port
        self._chance = chance
        self._seen = seen
        self._max_tokens = max_tokens
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, total: int) -> None:
        """Send requests until all clients together have sent `total`."""
        while self._seen.started < total:
            self._seen.started += 1
            leaves = self._chance.random() < 0.4
            try:
                while not await self._send_one(leaves=leaves):  # noqa: ASYNC110 - each turn is a request
                    await asyncio.sleep(0.2)
            except (OSError, asyncio.IncompleteReadError) as error:
                self._seen.faults.append(f"the connection broke: {type(error).__name__}")
                self._close(reset=False)
        self._close(reset=False)

    async def _send_one(self, *, leaves: bool) -> bool:
        """Send a request; say whether it was taken."""
        reader, writer = await self._connection()
        writer.write(self._request())
        if leaves and self._chance.random() < 0.2:
            await asyncio.sleep(self._chance.random() * 0.1)
            self._leave("before the first byte")
            return True
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split()[1].decode()
        self._seen.statuses[status] += 1
        if status != "200":
            self._note_refusal(status, head)
            self._close(reset=False)
            return status != "503"
        if leaves:
            await reader.read(self._chance.randrange(1, 4000))
            await asyncio.sleep(self._chance.random() * 0.2)
            self._leave("in mid-stream")
            return True
        body = await reader.readuntil(END_OF_REPLY)
        is_proper = b"data: [DONE]" in body and b'"usage":{' in body
        self._seen.ends["read to the end"] += 1
        if not is_proper:
            self._seen.faults.append("a stream ended without usage and [DONE]")
        return True

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        return self._reader, self._writer

    def _request(self) -> bytes:
        length = self._chance.choice((5, 20, 80, 200))
        text = " ".join(self._chance.choices(WORDS, k=length))
        body = json.dumps(
            {
                "model": "bench",
                "messages": [{"role": "user", "content": text}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": self._chance.randrange(1, self._max_tokens),
                "n": self._chance.choice((1, 1, 1, 2)),
            }
        ).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def _note_refusal(self, status: str, head: bytes) -> None:
        if status != "503" or b"\r\nretry-after:" not in head.lower():
            self._seen.faults.append(f"status {status} came, or came without retry-after")

    def _leave(self, when: str) -> None:
        reset = self._chance.random() < 0.5
        self._seen.ends[f"left {when}, {'reset' if reset else 'closed'}"] += 1
        self._close(reset=reset)

    def _close(self, *, reset: bool) -> None:
        if self._writer is not None:
            if reset:
                connection: socket.socket = self._writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.close()
        self._reader = self._writer = None


async def sample_memory(server: psutil.Process, seen: Observations) -> None:
    """Note the resident memory, for ever."""
    while True:
        own = server.memory_info().rss / 2**20
        engine = sum(child.memory_info().rss for child in server.children(recursive=True)) / 2**20
        seen.memory_mib.append((seen.started, own, engine))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def seconds_until_idle(port: int) -> float:
    """Return how long after the last client the server said that nothing runs or waits, or when we gave up."""
    began = time.monotonic()
    while True:
        _, body = await exchange(port, b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        ready, elapsed_s = json.loads(body), time.monotonic() - began
        if not ready["running"] + ready["waiting"] or elapsed_s > 10 * FREED_WITHIN_S:
            return elapsed_s
        await asyncio.sleep(0.05)


async def soak(arguments: argparse.Namespace, engine: str) -> dict[str, Any]:
    seen = Observations()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps({"replies": ["word " * 300, "Hi!"], "token_delay_ms": 2}))
        port = free_port()
        flags = ["--model-name", "bench", "--engine", engine, "--fake-script", str(script), *arguments.flags]
        with running_server(arguments.model, port, flags) as server:
            await wait_until_ready(port, server)
            files_before = server.num_fds()
            sampler = asyncio.create_task(sample_memory(server, seen))
            began = time.monotonic()
            clients = [
                Client(port, random.Random(number), seen, max_tokens=arguments.max_tokens)
                for number in range(arguments.connections)
            ]
            await asyncio.gather(*(client.run(arguments.requests) for client in clients))
            wall_s = time.monotonic() - began
            sampler.cancel()
            idle_s = await seconds_until_idle(port)
            files_leaked = server.num_fds() - files_before
    memory = memory_report(seen.memory_mib, arguments.requests)
    return {
        "engine": engine,
        "requests": arguments.requests,
        "connections": arguments.connections,
        "wall_s": round(wall_s, 1),
        "statuses": dict(seen.statuses),
        "ends": dict(seen.ends),
        "faults": dict(Counter(seen.faults)),
        "idle_after_s": round(idle_s, 2),
        "open_files_more_than_before": files_leaked,
        "memory": memory,
        "met": not seen.faults
        and idle_s < FREED_WITHIN_S
        and files_leaked <= 2
        and memory["second_half_spread"] <= MEMORY_BAR,
    }


def memory_report(samples: list[tuple[int, float, float]], total: int) -> dict[str, Any]:
    """Return the resident memory by tenths of the requests, and how wide its range is over the second half."""
    later = [own + engine for started, own, engine in samples if started >= total / 2] or [
        sum(samples[-1][1:])
    ]
    tenths: dict[int, tuple[float, float]] = {
        min(9, 10 * started // total): (own, engine) for started, own, engine in samples
    }
    return {
        "server_mib_by_tenth": [round(own) for own, _ in tenths.values()],
        "engine_mib_by_tenth": [round(engine) for _, engine in tenths.values()],
        "second_half_spread": round((max(later) - min(later)) / min(later), 4),
    }


async def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    busy = psutil.cpu_percent(interval=2.0) / 100
    return {
        "benchmark": "soak",
        "quiet": busy < BUSY_SHARE,
        "busy_share_before": round(busy, 3),
        "engines": [await soak(arguments, engine) for engine in arguments.engines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory instead of the starter")
    parser.add_argument("--engines", nargs="+", default=["torch"], help="fake, torch or both")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=200, help="replies are up to this long")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="further flags for turnwise-server"
    )
    print(json.dumps(asyncio.run(benchmark(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
