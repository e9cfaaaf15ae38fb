"""What POST /v1/moderations takes: forms of the input, names of the model, limits, and what it says of all else."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from support.fake_server import fake_server
from support.guarded_server import guarded_server
from turnwise_server.api.moderations.request import MAX_CHARS, MAX_INPUTS
from turnwise_server.auth import KeyRing, hash_key

PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TEXT = {"type": "text", "text": "bake"}
KEY = "tw-eve-0123456789abcdef"


async def post(body: dict[str, Any], **options: Any) -> httpx2.Response:
    async with guarded_server(**options) as server:
        return await server.client.post("/v1/moderations", json=body)


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "missing_required_parameter"),
    ({"input": None}, "input", "invalid_type"),
    ({"input": 5}, "input", "invalid_type"),
    ({"input": {}}, "input", "invalid_type"),
    ({"input": ""}, "input", "empty_string"),
    ({"input": []}, "input", "empty_array"),
    ({"input": ["bake", ""]}, "input[1]", "empty_string"),
    ({"input": ["bake", 5]}, "input[1]", "invalid_type"),
    ({"input": ["bake", TEXT]}, "input[1]", "invalid_type"),
    ({"input": [TEXT, "bake"]}, "input[1]", "invalid_type"),
    ({"input": ["bake"] * (MAX_INPUTS + 1)}, "input", "array_above_max_length"),
    ({"input": "a" * (MAX_CHARS + 1)}, "input", "string_above_max_length"),
    ({"input": ["bake", "a" * (MAX_CHARS + 1)]}, "input[1]", "string_above_max_length"),
    ({"input": [TEXT | {"text": "a" * (MAX_CHARS // 2)}] * 2}, "input", "string_above_max_length"),
    ({"input": "a\0b"}, "input", "invalid_value"),
    ({"input": [{"type": "text"}]}, "input[0].text", "missing_required_parameter"),
    ({"input": [{"type": "text", "text": ""}]}, "input[0].text", "empty_string"),
    ({"input": [TEXT, PICTURE]}, "input[1].type", "unsupported_value"),
    ({"input": "bake", "model": ""}, "model", "empty_string"),
    ({"input": "bake", "model": 1}, "model", "invalid_type"),
]


@pytest.mark.parametrize(("body", "param", "code"), INVALID)
async def test_what_is_wrong_is_named(body: dict[str, Any], param: str, code: str) -> None:
    reply = await post(body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


async def test_a_wrong_input_is_told_what_it_may_be() -> None:
    assert (await post({"input": 5})).json()["error"]["message"] == (
        "Invalid type for 'input': expected one of a string or array of strings or objects, but got an integer instead."
    )


async def test_pictures_are_refused_in_words() -> None:
    message = (await post({"input": [PICTURE]})).json()["error"]["message"]
    assert message == (
        "Unsupported value: 'input[0].type' does not support 'image_url': this server judges text alone."
    )


@pytest.mark.parametrize(
    "name",
    [
        None,
        "turnwise-safety",
        "turnwise-safety-default",
        "omni-moderation-latest",
        "omni-moderation-2024-09-26",
        "text-moderation-latest",
        "text-moderation-stable",
    ],
)
async def test_known_names_mean_the_one_model_and_the_reply_says_which(name: str | None) -> None:
    reply = await post({"input": "bake", "model": name})
    assert reply.json()["model"] == "turnwise-safety-default"


@pytest.mark.parametrize("name", ["test", "gpt-4o", "turnwise-safety-other"])
async def test_other_names_are_not_found(name: str) -> None:
    reply = await post({"input": "bake", "model": name})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_unknown_parameters_are_named_or_refused_if_the_server_is_strict() -> None:
    body = {"input": "bake", "temperature": 1}
    assert (await post(body)).headers["x-ignored-params"] == "temperature"
    refused = await post(body, settings={"strict_params": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_requests_count_for_the_limits_of_a_key_and_tokens_do_not() -> None:
    options: dict[str, Any] = {
        "keys": KeyRing([hash_key(KEY, "eve rpm=2 tpm=10")]),
        "headers": {"authorization": f"Bearer {KEY}"},
    }
    async with guarded_server(**options) as server:
        replies = [
            await server.client.post("/v1/moderations", json={"input": "bake " * 50}) for _ in range(3)
        ]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert replies[1].headers["x-ratelimit-remaining-tokens"] == "10"


async def test_a_server_without_a_classifier_says_that_it_has_none() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/moderations", json={"input": "bake"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "no_classifier")
    assert "--unsafe-no-classifier" in reply.json()["error"]["message"]
