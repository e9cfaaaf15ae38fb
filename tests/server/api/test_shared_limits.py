"""Two servers of one deployment share the limits of their keys in Redis; one of them is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.fake_model import write_fake_model, write_script
from support.fake_server import HELLO
from support.live_server import LiveServer, live_server, wait_until
from support.redis_server import needs_redis, redis_server
from turnwise_server.auth import hash_key

pytestmark = [needs_redis, pytest.mark.slow]

KEY, SLOW_KEY = "tw-canary-0123456789abcdef", "tw-slow-0123456789abcdef"
REPLICA = ("--engine", "fake", "--max-batch", "4")


def post(server: LiveServer, key: str, **body: Any) -> httpx2.Response:
    content = {"model": "test", "messages": HELLO, "max_tokens": 2} | body
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(f"{server.url}/v1/chat/completions", json=content, headers=headers, timeout=30)


def test_two_servers_share_one_limit_survive_redis_and_leak_no_slot(tmp_path: Path) -> None:
    model = write_fake_model(tmp_path, context_length=4096)
    script = write_script(tmp_path / "script.json", "word " * 4000, token_delay_ms=20)
    keys = tmp_path / "keys.txt"
    lines = [hash_key(KEY, "ada rpm=10").line(), hash_key(SLOW_KEY, "bob concurrent=1").line()]
    keys.write_text("\n".join(lines))
    flags = (*REPLICA, "--fake-script", str(script), "--api-keys-file", str(keys))
    with redis_server() as redis:
        env = {"TURNWISE_REDIS_URL": redis.url}
        with live_server(model, *flags, env=env) as first, live_server(model, *flags, env=env) as second:
            statuses = [post((first, second)[number % 2], KEY).status_code for number in range(14)]
            assert statuses == [200] * 10 + [429] * 4

            body = {"model": "test", "messages": HELLO, "max_tokens": 4000, "stream": True}
            headers = {"authorization": f"Bearer {SLOW_KEY}"}
            with httpx2.stream(
                "POST", f"{first.url}/v1/chat/completions", json=body, headers=headers
            ) as running:
                assert running.status_code == 200
                assert post(second, SLOW_KEY).status_code == 429
            wait_until(lambda: post(second, SLOW_KEY).status_code == 200, 10)

            redis.kill()
            started = time.monotonic()
            assert post(first, SLOW_KEY).status_code == post(second, KEY).status_code == 200
            assert time.monotonic() - started < 5
            assert "rate_limit_store_lost" in [line["event"] for line in first.log_lines()]
            for server in (first, second):
                assert "Traceback" not in server.log.read_text()
                assert redis.url not in server.log.read_text()
                assert json.dumps(KEY) not in server.log.read_text()
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(20) == 0
