"""Replies in a form, from the real engine by the official SDK: valid, streamed like whole, seeded, in parallel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from support.live_server import LiveServer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}


class Animal(BaseModel):
    """What the SDK's `parse` is asked for."""

    kind: Literal["cat", "dog"]
    legs: int = Field(ge=0, le=8)
    parent: Animal | None


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def ask(client: OpenAI, **options: Any) -> Any:
    content: Any = {
        "model": "test",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 120,
        "response_format": FORM,
    }
    return client.chat.completions.create(**content | options)


def test_every_choice_that_stops_is_valid(client: OpenAI) -> None:
    completion = ask(client, n=8, seed=1)
    reasons = {choice.finish_reason for choice in completion.choices}
    assert "stop" in reasons
    for choice in completion.choices:
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_a_reply_that_is_cut_says_length(client: OpenAI) -> None:
    completion = ask(client, max_tokens=5)
    assert completion.choices[0].finish_reason == "length"


def test_a_stream_is_the_whole_reply(client: OpenAI) -> None:
    for seed in range(4):
        choice = ask(client, seed=seed).choices[0]
        text, reason = "", None
        for chunk in ask(client, seed=seed, stream=True):
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
        assert (text, reason) == (choice.message.content, choice.finish_reason)


def test_seeds_give_the_same_alone_and_beside_others(client: OpenAI) -> None:
    alone = [ask(client, seed=seed).choices[0].message.content for seed in range(6)]
    with ThreadPoolExecutor(8) as pool:
        free = [pool.submit(ask, client, response_format={"type": "text"}) for _ in range(2)]
        held = list(pool.map(lambda seed: ask(client, seed=seed).choices[0].message.content, range(6)))
    assert held == alone
    assert all(future.result().choices for future in free)


def test_logprobs_come_with_every_token(client: OpenAI) -> None:
    choice = ask(client, seed=2, logprobs=True, top_logprobs=2).choices[0]
    entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in entries)


def test_an_object_of_any_kind(client: OpenAI) -> None:
    bias = {"95": 8}
    completion = ask(client, n=4, seed=3, response_format={"type": "json_object"}, logit_bias=bias)
    for choice in completion.choices:
        assert choice.message.content.startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)


def test_the_sdk_parses_a_recursive_model(client: OpenAI) -> None:
    animals = []
    for seed in range(12):
        try:
            completion = client.chat.completions.parse(
                model="test",
                messages=[{"role": "user", "content": "hello"}],
                response_format=Animal,
                max_tokens=120,
                seed=seed,
            )
        except openai.LengthFinishReasonError:
            continue
        animals.append(completion.choices[0].message.parsed)
    assert animals
    assert all(isinstance(animal, Animal) for animal in animals)


def test_a_refused_schema_is_the_sdks_bad_request(client: OpenAI) -> None:
    bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=bad)
    assert caught.value.param == "response_format.json_schema.schema.not"
