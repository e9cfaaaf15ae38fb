"""A server whose queue is full: it refuses at once, before it reads anything, and its probes stay quick."""

import asyncio
import time

from support.asgi_connection import until
from support.fake_server import fake_server


async def test_a_full_queue_refuses_at_once_and_health_stays_fast() -> None:
    async with fake_server("word " * 300, max_batch=1, max_queued_requests=1, token_delay_s=0.02) as server:
        fillers = [asyncio.create_task(server.chat(max_tokens=40)) for _ in range(2)]
        await until(lambda: server.engine.running + server.engine.waiting == 2)
        took_s = []
        for content in (b"{", b"x" * 1_000_000, b'{"model": "test"}'):
            began = time.perf_counter()
            refused = await server.client.post("/v1/chat/completions", content=content)
            took_s.append(time.perf_counter() - began)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert refused.json()["error"]["code"] == "server_is_overloaded"
            began = time.perf_counter()
            assert (await server.client.get("/health")).status_code == 200
            took_s.append(time.perf_counter() - began)
        for filler in fillers:
            filler.cancel()
        await asyncio.gather(*fillers, return_exceptions=True)
    assert sorted(took_s)[len(took_s) // 2] < 0.05, "the median: a busy test machine stalls now and then"
