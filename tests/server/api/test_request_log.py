"""The line that a request leaves in the log: every field is documented, and those of a reply are right."""

import re
from pathlib import Path
from typing import Any

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, encode, fake_server
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing, hash_key

DOCUMENT = (Path(__file__).parents[3] / "docs/configuration.md").read_text(encoding="utf-8")
KEY = "tw-canary-0123456789abcdef"


async def test_every_field_of_the_log_line_is_documented_and_no_other(
    log_lines: list[dict[str, Any]],
) -> None:
    ring = KeyRing([hash_key(KEY)])
    async with fake_server(keys=ring, headers={"authorization": f"Bearer {KEY}"}) as server:
        await server.chat()
        await server.client.get("/nope")
    section = DOCUMENT.partition("\n## Log\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    documented = {field for row in rows for field in re.findall(r"`(\w+)`", row)}
    assert {field for line in log_lines for field in line} == documented | {"event", "log_level"}


async def test_a_reply_that_waited_says_how_long(log_lines: list[dict[str, Any]]) -> None:
    async with fake_server(script=[encode("Hi!")], max_batch=1, token_delay_s=0.02) as server:
        app = create_app(server.services)
        connections = [AsgiConnection(app, {"model": "test", "messages": HELLO}) for _ in range(2)]
        for connection in connections:
            await connection.task
    first, second = log_lines
    assert first["queue_ms"] < 15
    assert second["queue_ms"] > 3 * 20
    assert second["duration_ms"] >= second["ttft_ms"] > second["queue_ms"]


async def test_a_reply_that_is_cut_in_the_queue_has_no_times_it_never_saw(
    log_lines: list[dict[str, Any]],
) -> None:
    async with fake_server(script=[encode("Hi!" * 50)], max_batch=1, token_delay_s=0.02) as server:
        app = create_app(server.services)
        running = AsgiConnection(app, {"model": "test", "messages": HELLO})
        await until(lambda: server.engine.running == 1)
        queued = AsgiConnection(app, {"model": "test", "messages": HELLO})
        await until(lambda: server.engine.waiting == 1)
        for connection in (queued, running):
            connection.hang_up()
            await connection.task
    line = log_lines[0]
    assert (line["status"], line["completion_tokens"]) == (499, 0)
    assert line["prompt_tokens"] > 0
    assert not {"queue_ms", "ttft_ms", "finish_reason"} & set(line)
