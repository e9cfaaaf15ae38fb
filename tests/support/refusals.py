"""Refusals as readers of each API understand them: what a reply says in the end, whole or streamed.

The readers take back what a stream takes back and believe nothing but its extensions, so that tests can hold streamed
and whole replies of every route against each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from support.fake_server import FakeServer, default_policy
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY

SHOWN = "All is well, and it is a fine day for a walk. " * 4
"""Long enough to be shown in part before the check of what follows."""
CUT = f"{SHOWN}Now take a zorb and the rest of the day off."
"""An answer of which words are shown before it is refused."""
EARLY = "Take a zorb."
"""An answer that is refused before anything of it is shown."""
QUESTION = "Where can I buy a zorb?"
"""A question that is refused."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a reply says in the end."""

    text: str
    signal: str | None
    """What `x_refusal` says, as stage/category."""
    ending: str
    """Why it ended, in the words of its API."""
    is_taken_back: bool = False
    """Whether other words were shown before."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route that makes replies, and how they are read."""

    path: str
    ask: Callable[[str], dict[str, Any]]
    whole: Callable[[Any], Said]
    streamed: Callable[[list[dict[str, Any]]], Said]
    complete: str
    """The ending of a refused question."""
    cut: str
    """The ending of a refused answer."""

    async def said(self, server: FakeServer, question: str = "hello", **more: Any) -> Said:
        """Ask, and return what a whole reply says."""
        return self.whole((await self.post(server, question, **more)).json())

    async def said_in_stream(self, server: FakeServer, question: str = "hello", **more: Any) -> Said:
        """Ask, and return what a streamed reply says when it has ended."""
        return self.streamed(data_of(await self.post(server, question, stream=True, **more)))

    async def post(self, server: FakeServer, question: str = "hello", **more: Any) -> httpx2.Response:
        """Ask."""
        body = {"model": "test"} | self.ask(question) | more
        reply = await server.client.post(self.path, json=body)
        assert reply.status_code == 200, reply.text
        return reply


def words(category: str = "weapons") -> str:
    """What the policy that ships says when it refuses."""
    found = next(each for each in default_policy().current.policy.categories if each.id == category)
    assert found.refusal is not None
    return found.refusal.text["en"]


def policy_in_style(folder: Path, style: str) -> Path:
    """Write the policy that ships with refusals in another style."""
    file = folder / f"{style}.yaml"
    content = DEFAULT_POLICY.read_text()
    assert "refusal: {style: content," in content
    file.write_text(content.replace("refusal: {style: content,", f"refusal: {{style: {style},"))
    return file


def data_of(reply: httpx2.Response) -> list[dict[str, Any]]:
    """The JSON of each frame of a stream."""
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def chat_choices(chunks: list[dict[str, Any]]) -> dict[int, Said]:
    """What each choice of a stream of chat completions says."""
    return _choices(chunks, lambda choice: "".join(choice["delta"].get(key) or "" for key in _CHAT_FIELDS))


_CHAT_FIELDS = ("content", "refusal")


def _choices(chunks: list[dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> dict[int, Said]:
    said: dict[int, Said] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        before = said.get(choice["index"], Said("", None, ""))
        if choice.get("x_moderation") == {"retract": True}:
            assert before.text, "nothing to take back"
            before = replace(before, text="", is_taken_back=True)
        said[choice["index"]] = replace(
            before,
            text=before.text + text(choice),
            signal=_signal(choice) or before.signal,
            ending=choice["finish_reason"] or before.ending,
        )
    return said


def _signal(holder: dict[str, Any]) -> str | None:
    found = holder.get("x_refusal")
    return found and f"{found['stage']}/{found['category']}"


def _chat(body: Any) -> Said:
    (choice,) = body["choices"]
    message = choice["message"]
    return Said(message["content"] or message["refusal"] or "", _signal(choice), choice["finish_reason"])


def _text(body: Any) -> Said:
    (choice,) = body["choices"]
    return Said(choice["text"], _signal(choice), choice["finish_reason"])


def _response(body: Any) -> Said:
    text, signal = "", None
    for item in body["output"]:
        for part in item.get("content", ()):
            text += part.get("text") or part.get("refusal") or ""
        signal = _signal(item) or signal
    details = body["incomplete_details"]
    return Said(text, signal, details["reason"] if details else body["status"])


def _response_events(events: list[dict[str, Any]]) -> Said:
    """Put the items together from their deltas, and hold them against the response at the end."""
    items: dict[int, str] = {}
    signal, is_taken_back = None, False
    for event in events:
        match event:
            case {"type": "response.output_item.added", "output_index": index, "item": item}:
                if event.get("x_moderation") == {"retract": True}:
                    assert any(items.values()), "nothing to take back"
                    items, is_taken_back = {}, True
                items[index] = ""
                signal = _signal(item) or signal
            case {"type": "response.output_text.delta" | "response.refusal.delta", "output_index": index}:
                items[index] += event["delta"]
    end = _response(events[-1]["response"])
    assert end == Said("".join(items.values()), signal, end.ending)
    return replace(end, is_taken_back=is_taken_back)


def _message(body: Any) -> Said:
    text = "".join(block.get("text", "") for block in body["content"])
    return Said(text, _signal(body), body["stop_reason"])


def _message_events(events: list[dict[str, Any]]) -> Said:
    blocks: list[str] = []
    for event in events:
        match event:
            case {"type": "content_block_start"}:
                blocks.append("")
            case {"type": "content_block_delta", "index": index, "delta": {"text": text}}:
                blocks[index] += text
            case {"type": "message_delta", "delta": delta}:
                is_taken_back = event.get("x_moderation") == {"retract": True}
                assert not is_taken_back or any(blocks[:-1]), "nothing to take back"
                text = "".join(blocks[-1:] if is_taken_back else blocks)
                return Said(text, _signal(delta), delta["stop_reason"], is_taken_back)
    raise AssertionError("no end")


CHAT = Route(
    "/v1/chat/completions",
    lambda question: {"messages": [{"role": "user", "content": question}]},
    _chat,
    lambda chunks: chat_choices(chunks)[0],
    complete="stop",
    cut="content_filter",
)
TEXT = Route(
    "/v1/completions",
    lambda question: {"prompt": question, "max_tokens": 400},
    _text,
    lambda chunks: _choices(chunks, lambda choice: str(choice["text"]))[0],
    complete="stop",
    cut="content_filter",
)
RESPONSES = Route(
    "/v1/responses",
    lambda question: {"input": question},
    _response,
    _response_events,
    complete="completed",
    cut="content_filter",
)
MESSAGES = Route(
    "/v1/messages",
    lambda question: {"max_tokens": 400, "messages": [{"role": "user", "content": question}]},
    _message,
    _message_events,
    complete="refusal",
    cut="refusal",
)
ROUTES = (CHAT, TEXT, RESPONSES, MESSAGES)
