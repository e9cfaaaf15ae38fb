"""Measures how an overloaded server answers: how fast it refuses, and whether /health stays fast meanwhile.

Starts `turnwise-server` with a short queue, keeps the batch and the queue full with long streams, and sends more
requests at a steady rate, small and large in turns. Prints one JSON object for the fake engine and the real one. The
bar is 50 ms for every refusal and every /health. On a machine that is busy with other things the figures mean little;
the report then says `"quiet": false`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from serving import BUSY_SHARE, exchange, free_port, running_server, wait_until_ready

BAR_MS = 50.0
BATCH, QUEUE = 8, 16
LARGE_BODY = 200_000
"""Characters of every second request that is to be refused."""


@dataclass(slots=True)
class Observations:
    """What the clients saw."""

    refusals_ms: list[float] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals_without_retry_after: int = 0


def post(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def request(text: str, max_tokens: int) -> bytes:
    messages = [{"role": "user", "content": text}]
    return post({"model": "bench", "messages": messages, "max_tokens": max_tokens, "stream": True})


async def keep_streaming(port: int) -> None:
    """Hold a place in the batch or the queue, for ever."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("tell me a story", 400))
        async for _ in reader:
            pass
        writer.close()


async def try_once(port: int, content: str, seen: Observations) -> None:
    """Ask for a reply, and leave at once if one is begun."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(content, 1))
    head = await reader.readuntil(b"\r\n\r\n")
    elapsed_ms = (time.monotonic() - began) * 1000
    writer.close()
    status = int(head.split()[1])
    seen.statuses[status] += 1
    if status == 503:
        seen.refusals_ms.append(elapsed_ms)
        seen.refusals_without_retry_after += b"\r\nretry-after:" not in head.lower()


async def ask_health(port: int, seen: Observations) -> None:
    began = time.monotonic()
    status, _ = await exchange(port, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    seen.health_ms.append((time.monotonic() - began) * 1000)
    seen.statuses[status] += 1


async def observe(port: int, *, seconds: float, per_second: float) -> Observations:
    seen = Observations()
    fillers = [asyncio.create_task(keep_streaming(port)) for _ in range(BATCH + QUEUE + 1)]
    await asyncio.sleep(1.0)
    tasks: list[asyncio.Task[None]] = []
    for number in range(int(seconds * per_second)):
        content = "hello" if number % 2 else "hello " * (LARGE_BODY // 6)
        tasks.append(asyncio.create_task(try_once(port, content, seen)))
        tasks.append(asyncio.create_task(ask_health(port, seen)))
        await asyncio.sleep(1 / per_second)
    await asyncio.gather(*tasks)
    for filler in fillers:
        filler.cancel()
    await asyncio.gather(*fillers, return_exceptions=True)
    return seen


async def measure(engine: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps({"replies": ["word " * 390], "token_delay_ms": 20}))
        port = free_port()
        flags = ["--model-name", "bench", "--engine", engine, "--fake-script", str(script)]
        flags += ["--max-batch", str(BATCH), "--max-queued-requests", str(QUEUE), "--log-level", "warning"]
        with running_server(arguments.model, port, flags) as server:
            await wait_until_ready(port, server)
            seen = await observe(port, seconds=arguments.seconds, per_second=arguments.per_second)
    refusals, health = summary(seen.refusals_ms), summary(seen.health_ms)
    return {
        "engine": engine,
        "statuses": dict(sorted(seen.statuses.items())),
        "refusals_ms": refusals,
        "health_ms": health,
        "refusals_without_retry_after": seen.refusals_without_retry_after,
        "met": max(refusals["max"], health["max"]) < BAR_MS and not seen.refusals_without_retry_after,
    }


def summary(values: list[float]) -> dict[str, float]:
    """Return how many there are and how they lie."""
    if not values:
        raise SystemExit("nothing was refused: the queue was never full")
    ordered = sorted(values)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    places = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in shares.items()
    }
    return {"count": len(ordered)} | {name: round(value, 1) for name, value in places.items()}


async def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    busy = psutil.cpu_percent(interval=2.0) / 100
    return {
        "benchmark": "overload",
        "quiet": busy < BUSY_SHARE,
        "busy_share_before": round(busy, 3),
        "bar_ms": BAR_MS,
        "engines": [await measure(engine, arguments) for engine in arguments.engines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory instead of the starter")
    parser.add_argument("--engines", nargs="+", default=["fake", "torch"], help="fake, torch or both")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-second", type=float, default=20.0, help="requests to refuse each second")
    print(json.dumps(asyncio.run(benchmark(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
