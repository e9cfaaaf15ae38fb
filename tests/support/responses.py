"""What tests of /v1/responses share: asking for one, and reading the events of a stream."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from support.asgi_connection import AsgiConnection
from support.fake_server import FakeServer


async def respond(server: FakeServer, **body: Any) -> httpx2.Response:
    """POST a response; by default "hello" to the model "test"."""
    return await server.client.post("/v1/responses", json={"model": "test", "input": "hello"} | body)


def connect(server: FakeServer, **body: Any) -> AsgiConnection:
    """POST a response on a connection that the test drives."""
    return AsgiConnection(server.app, {"model": "test", "input": "hello"} | body, path="/v1/responses")


def events_of(text: str) -> list[dict[str, Any]]:
    """Read a stream: every frame is named like its data, numbers have no gaps, nothing follows the last frame."""
    frames = text.split("\n\n")
    assert frames.pop() == ""
    events = []
    for frame in frames:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert list(event)[:2] == ["type", "sequence_number"]
        events.append(event)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return events


def types_of(events: list[dict[str, Any]]) -> list[str]:
    """The types of events, each run of deltas as one."""
    types: list[str] = []
    for event in events:
        name = event["type"].removeprefix("response.")
        if not (name.endswith(".delta") and types and types[-1] == name):
            types.append(name)
    return types


def text_of(response: dict[str, Any]) -> str:
    """All text of a response."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )
