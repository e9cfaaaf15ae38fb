"""The four routes that generate, read alike: what a reply said, why it ended and what it counted, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from support.fake_server import HELLO, FakeServer

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What a reply comes down to on every route."""

    text: str
    reason: str
    """"stop" or "length"."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class GeneratingRoute:
    """How one route is asked and read."""

    path: str
    prompt: Json
    limit: str
    """The parameter that limits the reply."""
    stop: str | None
    """The parameter for strings that end it, if there is one."""
    read: Callable[[Json], Said]
    delta: Callable[[Json], str]
    """The text in one frame of a stream."""
    total: Callable[[list[Json]], Json]
    """The body, without its text, that the frames of a stream add up to."""
    options: Mapping[str, Any]
    """What a stream needs to count."""

    def body(self, **more: Any) -> Json:
        """Return a request: "hello" to the model "test"."""
        return {"model": "test", self.limit: 64} | self.prompt | more

    async def whole(self, server: FakeServer, **more: Any) -> Said:
        """Ask for a whole reply."""
        reply = await server.client.post(self.path, json=self.body(**more))
        assert reply.status_code == 200, reply.text
        return self.read(reply.json())

    async def streamed(self, server: FakeServer, **more: Any) -> tuple[Said, list[str]]:
        """Ask for a stream; return what it adds up to, and its pieces of text."""
        options = {"stream": True} | dict(self.options) | more
        reply = await server.client.post(self.path, json=self.body(**options))
        assert reply.status_code == 200, reply.text
        found = frames(reply.text)
        pieces = [self.delta(frame) for frame in found]
        said = self.read(self.total(found))
        text = "".join(pieces)
        return Said(text, said.reason, said.prompt_tokens, said.completion_tokens, said.cached_tokens), pieces


def frames(text: str) -> list[Json]:
    """Return the JSON of every frame of a stream."""
    lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _read_openai(reply: Json, text: str) -> Said:
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    reason = reply["choices"][0]["finish_reason"]
    return Said(text, reason, usage["prompt_tokens"], usage["completion_tokens"], cached)


def _read_chat(reply: Json) -> Said:
    return _read_openai(reply, reply["choices"][0].get("message", {}).get("content") or "")


def _read_completion(reply: Json) -> Said:
    return _read_openai(reply, reply["choices"][0]["text"])


def _read_response(reply: Json) -> Said:
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    if reply["status"] == "incomplete":
        assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    parts = [part for item in reply["output"] if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts)
    cached = usage["input_tokens_details"]["cached_tokens"]
    reason = {"completed": "stop", "incomplete": "length"}[reply["status"]]
    return Said(text, reason, usage["input_tokens"], usage["output_tokens"], cached)


def _read_message(reply: Json) -> Said:
    usage = reply["usage"]
    cached = usage["cache_read_input_tokens"]
    reason = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}[reply["stop_reason"]]
    text = "".join(block["text"] for block in reply["content"])
    return Said(text, reason, usage["input_tokens"] + cached, usage["output_tokens"], cached)


def _chat_delta(frame: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in frame["choices"])


def _openai_total(found: list[Json]) -> Json:
    *rest, last = found
    assert last["choices"] == []
    assert all(frame["usage"] is None for frame in rest)
    return {"choices": rest[-1]["choices"], "usage": last["usage"]}


def _message_total(found: list[Json]) -> Json:
    assert found[-1] == {"type": "message_stop"}
    last = found[-2]
    return {**found[0]["message"], **last["delta"], "usage": last["usage"]}


_COUNTED = {"stream_options": {"include_usage": True}}

ROUTES = {
    "chat": GeneratingRoute(
        "/v1/chat/completions",
        {"messages": HELLO},
        "max_tokens",
        "stop",
        _read_chat,
        _chat_delta,
        _openai_total,
        _COUNTED,
    ),
    "completions": GeneratingRoute(
        "/v1/completions",
        {"prompt": "hello"},
        "max_tokens",
        "stop",
        _read_completion,
        lambda frame: "".join(choice["text"] for choice in frame["choices"]),
        _openai_total,
        _COUNTED,
    ),
    "responses": GeneratingRoute(
        "/v1/responses",
        {"input": "hello", "store": False},
        "max_output_tokens",
        None,
        _read_response,
        lambda frame: str(frame["delta"]) if frame["type"] == "response.output_text.delta" else "",
        lambda found: dict(found[-1]["response"]),
        {},
    ),
    "messages": GeneratingRoute(
        "/v1/messages",
        {"messages": HELLO},
        "max_tokens",
        "stop_sequences",
        _read_message,
        lambda frame: str(frame["delta"]["text"]) if frame["type"] == "content_block_delta" else "",
        _message_total,
        {},
    ),
}


def error_of(reply: httpx2.Response) -> Json:
    """Return the error object of a refusal, whichever route it came from."""
    error: Json = reply.json()["error"]
    return error
