"""Requests that are huge, and clients that leave: limits answer, nothing fails, nothing keeps running."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from support.answers import ask, user
from support.asgi_connection import AsgiConnection, until
from support.attacks import base64_encoded, many_shots
from support.guarded_server import WordDetector, guarded_server

REPLY = "Here you are."
MEGABYTE = 2**20
LIMIT_S = 60.0
"""Generous, for busy machines: what these tests exclude takes many minutes."""
UNITS = {
    "words": "the birds sing in the old apple tree ",
    "letters": "a",
    "spaced letters": "a b c d ",
    "digits among letters": "h3ll0 ",
    "base64": "dGhlIGJpcmRzIHNpbmcgaW4gdGhlIG9sZCBhcHBsZSB0cmVl ",
    "hexadecimal": "7468652062697264732073696e6720",
    "escapes": "%68%65%6c",
    "JSON's escapes": "\\u0068",
    "zero-width characters": "\u200b",
    "combining marks": "e\u0301\u0316\u0335",
    "long ligatures": "\ufdfa",
    "white space": " \n\t",
    "tag characters": "\U000e0061",
    "nested quotes": '{"a": "',
}


@pytest.mark.parametrize("unit", UNITS)
async def test_a_message_of_a_megabyte_is_answered_by_the_limit_of_the_context(unit: str) -> None:
    text = UNITS[unit]
    huge = text * (MEGABYTE // len(text.encode()))
    began = time.perf_counter()
    async with guarded_server(REPLY) as server:
        reply = await server.chat(messages=user(huge))
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "context_length_exceeded"
        assert (await ask(server, user(text))).said == REPLY
    assert time.perf_counter() - began < LIMIT_S


@pytest.mark.parametrize("word", ["zorb", "kite"])
async def test_a_megabyte_that_fits_is_judged_to_its_last_word(word: str) -> None:
    huge = UNITS["words"] * (MEGABYTE // len(UNITS["words"]))
    began = time.perf_counter()
    async with guarded_server(REPLY, context_length=10**7) as server:
        reply = await server.chat(messages=user(f"{huge} Where is a {word}?"))
        assert reply.headers.get("x-refusal") == ("input/weapons" if word == "zorb" else None)
    assert time.perf_counter() - began < LIMIT_S


async def test_a_body_above_the_limit_is_not_read() -> None:
    async with guarded_server(REPLY) as server:
        reply = await server.chat(messages=user("zorb " * MEGABYTE))
        assert reply.status_code == 413
        assert (await ask(server, user("kite"))).said == REPLY


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
async def test_ten_thousand_messages_are_too_many(role: str) -> None:
    began = time.perf_counter()
    async with guarded_server(REPLY, context_length=10**6) as server:
        messages = [{"role": role, "content": "kite"}] * 10_000
        reply = await server.chat(messages=messages)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "array_above_max_length"
        reply = await server.chat(messages=[*messages[:2000], *user("Hello")])
        assert reply.json()["choices"][0]["message"]["content"] == REPLY
        reply = await server.chat(
            messages=[*messages[:1000], *user("zorb"), *messages[:1000], *user("Hello")]
        )
        assert reply.headers["x-refusal"] == "input/weapons"
    assert time.perf_counter() - began < LIMIT_S


async def test_a_hundred_forged_exchanges_hide_nothing_before_or_behind_them() -> None:
    shots: list[dict[str, Any]] = [
        {"role": message.role, "content": message.content} for message in many_shots("Hello")
    ]
    async with guarded_server(REPLY, context_length=10**5) as server:
        assert (await ask(server, shots)).said == REPLY
        for place in (0, len(shots) // 2, len(shots)):
            messages = [*shots[:place], *user("A zorb."), *shots[place:]]
            assert (await ask(server, messages)).refused == "input/weapons"


async def test_what_truncation_leaves_out_is_neither_read_nor_judged() -> None:
    history = [*user("A zorb. " + "word " * 300), {"role": "assistant", "content": "word " * 100}]
    async with guarded_server(REPLY) as server:
        reply = await server.chat(messages=[*history, *user("Hello")], truncation="auto")
        assert int(reply.headers["x-context-truncated"]) > 0
        assert "x-refusal" not in reply.headers


async def test_encodings_inside_of_encodings_end() -> None:
    bad, deep = "How do I build a zorb at home with my brother?", "The birds sing in the old apple tree."
    for _ in range(20):
        deep = base64_encoded(deep)
    async with guarded_server(REPLY, context_length=10**6) as server:
        assert (await ask(server, user(f"{deep} {base64_encoded(bad)}"))).refused == "input/weapons"
        assert (await ask(server, user(deep))).said == REPLY


def shown(connection: AsgiConnection) -> str:
    """What a client that has left saw of the reply."""
    frames = [
        line.removeprefix("data: ") for line in connection.text.split("\n\n") if line.startswith("data: {")
    ]
    return "".join(json.loads(frame)["choices"][0]["delta"].get("content", "") for frame in frames)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("question", ["A zorb?", "Hello"])
async def test_a_client_that_leaves_stops_generation_and_checks(question: str, stream: bool) -> None:
    detector = WordDetector("words", delay_s=5.0)
    async with guarded_server(
        "fox " * 400, detector=detector, context_length=4096, token_delay_s=0.01
    ) as server:
        body = {"model": "test", "messages": user(question), "stream": stream, "max_tokens": 1000}
        connection = AsgiConnection(server.app, body)
        await until(lambda: server.engine.running == 1 and detector.seen)
        connection.hang_up()
        async with asyncio.timeout(2.0):
            await connection.task
        await until(lambda: server.engine.running == server.engine.waiting == 0)
        assert server.engine.cancelled == 1
        assert shown(connection) == ""


async def test_a_client_that_leaves_while_words_are_held_leaves_no_slot_taken() -> None:
    class SlowLater(WordDetector):
        """It takes its time once the reply has begun to be shown."""

        async def score(self, samples: Any) -> Any:
            self.delay_s = 5.0 if len(samples[0].text) > 200 and samples[0].stage == "output" else 0.0
            return await super().score(samples)

    detector = SlowLater("words")
    async with guarded_server(
        "fox " * 400, detector=detector, context_length=4096, token_delay_s=0.002, max_batch=1
    ) as server:
        body = {"model": "test", "messages": user("Hello"), "stream": True, "max_tokens": 1000}
        connection = AsgiConnection(server.app, body)
        await until(lambda: detector.delay_s > 0)
        connection.hang_up()
        async with asyncio.timeout(2.0):
            await connection.task
        await until(lambda: server.engine.running == 0)
        assert "fox fox" in shown(connection)
        assert len(shown(connection)) < 200
        assert (await server.chat(messages=user("Hello"), max_tokens=5)).status_code == 200
