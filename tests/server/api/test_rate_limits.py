"""Rate limits as clients meet them: headers, the 429, what counts and what does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, FakeServer, fake_server
from turnwise_server.api.errors import duration
from turnwise_server.api.gates.rate_limits import LIMITED_PATHS
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing, hash_key

ADA, BOB, EVE = (f"tw-{name}-0123456789abcdef" for name in ("ada", "bob", "eve"))
RING = KeyRing([hash_key(ADA, "ada rpm=2"), hash_key(BOB, "bob tpm=200 concurrent=1"), hash_key(EVE)])
FREE_POSTS = {
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/apply-template",
    "/v1/responses/input_tokens",
    "/v1/messages/count_tokens",
    "/v1/feedback",
}
"""Routes that read a body and generate nothing."""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@asynccontextmanager
async def limited(key: str, *replies: str, **options: Any) -> AsyncIterator[FakeServer]:
    async with fake_server(*replies, keys=RING, headers=bearer(key), **options) as server:
        yield server


def limits_in(reply: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name.startswith("x-ratelimit")}


async def test_every_reply_says_where_the_key_stands() -> None:
    async with limited(ADA) as server:
        first, second = await server.chat(), await server.chat(stream=True)
    assert first.status_code == second.status_code == 200
    assert limits_in(first) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
    }
    assert second.headers["x-ratelimit-remaining-requests"] == "0"


async def test_too_many_requests_are_refused_with_the_time_to_come_again() -> None:
    async with limited(ADA) as server:
        replies = [await server.chat() for _ in range(3)]
        generated = len(server.engine.requests)
    refused = replies[-1]
    error = refused.json()["error"]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert error["message"].startswith("Rate limit reached on requests per minute: limit 2, requested 1.")
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert 25_000 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-request-id"]
    assert "x-should-retry" not in refused.headers
    assert generated == 2


async def test_a_limited_key_is_refused_before_its_body_is_read() -> None:
    async with limited(ADA) as server:
        for _ in range(2):
            await server.chat()
        refused = await server.client.post("/v1/chat/completions", content=b"{" * 100_000)
    assert refused.status_code == 429


async def test_a_wrong_request_counts_as_one_and_uses_no_tokens() -> None:
    async with limited(BOB) as server:
        wrong = await server.chat(max_tokens=0)
        assert wrong.status_code == 400
        assert wrong.headers["x-ratelimit-remaining-tokens"] == "200"
    async with limited(ADA) as server:
        assert (await server.client.post("/v1/chat/completions", content=b"{")).status_code == 400
        assert (await server.chat(model="nope")).headers["x-ratelimit-remaining-requests"] == "0"


async def test_tokens_are_reserved_while_a_reply_runs_and_settled_when_it_ends() -> None:
    async with limited(BOB, "one two three") as server:
        first = await server.chat(max_tokens=100)
        usage = first.json()["usage"]
        reserved = usage["prompt_tokens"] + 100
        assert first.headers["x-ratelimit-remaining-tokens"] == str(200 - reserved)
        second = await server.chat(max_tokens=100)
        left = int(second.headers["x-ratelimit-remaining-tokens"])
        assert 0 <= left - (200 - usage["total_tokens"] - reserved) <= 2, "a little has come back meanwhile"


async def test_a_reply_that_would_use_too_many_tokens_is_refused() -> None:
    async with limited(BOB) as server:
        used = await server.chat(max_tokens=100, n=1)
        refused = await server.chat(max_tokens=175)
        again = await server.chat(max_tokens=50)
    error = refused.json()["error"]
    assert (used.status_code, refused.status_code, again.status_code) == (200, 429, 200)
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert "try again in" in error["message"]


@pytest.mark.parametrize("body", [{"max_tokens": 400}, {"max_tokens": 60, "n": 4}, {}])
async def test_a_reply_that_can_never_fit_says_so(body: dict[str, int]) -> None:
    async with limited(BOB) as server:
        refused = await server.chat(**body)
        assert not server.engine.requests
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "fewer tokens" in refused.json()["error"]["message"]


async def test_requests_at_the_same_time_are_limited_until_their_last_byte() -> None:
    async with limited(BOB, "word " * 200, token_delay_s=0.01) as server:
        running = asyncio.create_task(server.chat(max_tokens=100, stream=True))
        await until(lambda: server.engine.running == 1)
        refused = await server.chat(max_tokens=5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: server.engine.running == 0)
        assert (await server.chat(max_tokens=5)).status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "requests"
    assert "requests at the same time: limit 1" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_leaves_gives_back_its_slot_and_the_tokens_it_did_not_use(streams: bool) -> None:
    settings = {"rate_limit_tpm": 1000, "rate_limit_concurrent": 1}
    async with fake_server("word " * 300, settings=settings, token_delay_s=0.02) as server:
        app = create_app(server.services)
        body = {"model": "test", "messages": HELLO, "max_tokens": 400, "stream": streams}
        connection = AsgiConnection(app, body)
        await until(lambda: server.engine.running == 1)
        connection.hang_up()
        await asyncio.wait_for(connection.task, 5)
        after = await server.chat(max_tokens=2)
        assert after.status_code == 200
        assert int(after.headers["x-ratelimit-remaining-tokens"]) > 900


async def test_a_full_queue_gives_reserved_tokens_back() -> None:
    settings = {"rate_limit_tpm": 1000}
    async with fake_server(
        settings=settings, max_batch=1, max_queued_requests=0, token_delay_s=0.1
    ) as server:
        running = asyncio.create_task(server.chat(max_tokens=1))
        await until(lambda: server.engine.running == 1)
        for _ in range(5):
            refused = await server.chat(max_tokens=400)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        await running
        assert (await server.chat(max_tokens=400)).status_code == 200


async def test_a_key_without_limits_and_a_server_without_them_say_nothing() -> None:
    async with limited(EVE) as server:
        assert not limits_in(await server.chat())
        assert not limits_in(await server.client.get("/v1/models"))
    async with fake_server() as server:
        assert not limits_in(await server.chat())


async def test_limits_of_the_server_hold_for_keys_that_have_none_and_for_all_without_keys() -> None:
    settings = {"rate_limit_rpm": 1}
    async with limited(EVE, settings=settings) as server:
        statuses = [(await server.chat(), await server.client.get("/v1/models")) for _ in range(2)]
        assert [(chat.status_code, models.status_code) for chat, models in statuses] == [
            (200, 200),
            (429, 200),
        ]
        other = await server.client.post(
            "/v1/chat/completions", json={"model": "test", "messages": HELLO}, headers=bearer(ADA)
        )
        assert other.status_code == 200
    async with fake_server(settings=settings) as server:
        assert [(await server.chat()).status_code for _ in range(2)] == [200, 429]


async def test_a_wrong_key_does_not_use_up_anybodys_limit() -> None:
    async with fake_server(keys=RING, settings={"rate_limit_rpm": 1}) as server:
        for _ in range(3):
            assert (await server.chat()).status_code == 401
        reply = await server.client.post(
            "/v1/chat/completions", json={"model": "test", "messages": HELLO}, headers=bearer(EVE)
        )
        assert reply.status_code == 200


async def test_a_refusal_is_one_line_in_the_log_with_its_code(log_lines: list[dict[str, Any]]) -> None:
    async with limited(ADA) as server:
        for _ in range(3):
            await server.chat()
    line = log_lines[-1]
    assert (line["status"], line["error"], line["key_id"]) == (
        429,
        "rate_limit_exceeded",
        hash_key(ADA).key_id,
    )


async def test_the_openai_sdk_sees_its_own_error_and_the_headers() -> None:
    async with limited(ADA) as server:
        client = openai.AsyncOpenAI(
            base_url="http://127.0.0.1:8000/v1",
            api_key=ADA,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(transport=server.client._transport),
        )
        raw = await client.chat.completions.with_raw_response.create(model="test", messages=HELLO)  # type: ignore[arg-type]
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        await client.chat.completions.create(model="test", messages=HELLO)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="test", messages=HELLO)  # type: ignore[arg-type]
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")
    assert refused.value.response.headers["x-ratelimit-limit-requests"] == "2"
    assert float(refused.value.response.headers["retry-after-ms"]) > 0


async def test_every_route_that_generates_is_limited_and_declares_it() -> None:
    async with fake_server() as server:
        document = json.loads((await server.client.get("/openapi.json")).text)
    posts = {
        path: operations["post"] for path, operations in document["paths"].items() if "post" in operations
    }
    for path, operation in posts.items():
        if path in LIMITED_PATHS:
            assert "429" in operation["responses"], path
        else:
            is_about_what_is_stored = "{" in path
            assert is_about_what_is_stored or path in FREE_POSTS or not path.startswith("/v1/"), path


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (6, "6s"),
        (59.85, "59.85s"),
        (60, "1m0s"),
        (72.5, "1m12.5s"),
        (3600, "60m0s"),
    ],
)
def test_time_spans_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
