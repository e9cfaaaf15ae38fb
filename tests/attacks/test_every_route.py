"""Every route that generates judges all that its own requests carry, and answers their harmless twins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.fake_server import FakeServer
from support.guarded_server import guarded_server
from support.tool_templates import HERMES

Json = dict[str, Any]
REPLY = "Here you are."


def said(role: str, content: object) -> Json:
    return {"role": role, "content": content}


def response_items(kind: str, word: str) -> Json:
    called = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": f'{{"q": "a {word}"}}'}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    if kind == "result":
        called, result = called | {"arguments": "{}"}, result | {"output": f"a {word}"}
    return {"input": [said("user", "Hi."), called, result]}


def message_blocks(kind: str, word: str) -> Json:
    called = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": f"a {word}"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
    if kind == "result":
        called, result = called | {"input": {}}, result | {"content": f"a {word}"}
    return {"messages": [said("user", "Hi."), said("assistant", [called]), said("user", [result])]}


def requests(word: str) -> Iterator[tuple[str, str, Json]]:
    """Yield a name, a path and a body that carries a word somewhere."""
    path = "/v1/responses"
    yield "responses: text", path, {"input": f"A {word}?"}
    yield "responses: instructions", path, {"input": "Hi.", "instructions": f"Talk of a {word}."}
    for role in ("user", "assistant", "system", "developer"):
        yield f"responses: {role}", path, {"input": [said(role, f"A {word}."), said("user", "Go on.")]}
    for kind in ("call", "result"):
        yield f"responses: {kind}", path, response_items(kind, word)
    path = "/v1/messages"
    yield "messages: text", path, {"messages": [said("user", f"A {word}?")]}
    yield "messages: system", path, {"messages": [said("user", "Hi.")], "system": f"Talk of a {word}."}
    history = [said("user", "Hi."), said("assistant", f"A {word}."), said("user", "Go on.")]
    yield "messages: assistant", path, {"messages": history}
    yield "messages: prefill", path, {"messages": history[:2]}
    for kind in ("call", "result"):
        yield f"messages: {kind}", path, message_blocks(kind, word)
    path = "/v1/completions"
    yield "completions: prompt", path, {"prompt": f"A {word}"}
    yield "completions: the last prompt", path, {"prompt": ["Hi.", f"A {word}"]}


async def ask(server: FakeServer, path: str, body: Json) -> tuple[str | None, str]:
    """Return what the header says of a refusal, and the body."""
    limit = {} if path == "/v1/responses" else {"max_tokens": 60}
    reply = await server.client.post(path, json={"model": "test"} | limit | body)
    assert reply.status_code == 200, reply.text
    return reply.headers.get("x-refusal"), reply.text


@pytest.mark.parametrize("name", [name for name, _, _ in requests("")])
async def test_a_word_is_found_wherever_a_route_takes_it(name: str) -> None:
    async with guarded_server(REPLY, template=HERMES, context_length=4096) as server:
        for word, refused in (("zorb", "input/weapons"), ("kite", None)):
            path, body = next((path, body) for found, path, body in requests(word) if found == name)
            signal, text = await ask(server, path, body)
            assert signal == refused
            assert (REPLY in text) == (refused is None)
