"""Every refusal of a parameter: status, code, param and text, before any work is done."""

from typing import Any

import pytest

from support.fake_server import HELLO, fake_server
from turnwise_server.api.errors import ERROR_CODES


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


INVALID_TYPES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"model": 5}, "model", "a string", "an integer"),
    ({"messages": "hello"}, "messages", "an array", "a string"),
    ({"messages": ["hello"]}, "messages[0]", "an object", "a string"),
    ({"messages": [*HELLO, {"role": 1, "content": "a"}]}, "messages[1].role", "a string", "an integer"),
    ({"messages": user(5)}, "messages[0].content", "one of a string or array of objects", "an integer"),
    ({"messages": user(["a"])}, "messages[0].content[0]", "an object", "a string"),
    (
        {"messages": user([{"type": "text", "text": 1}])},
        "messages[0].content[0].text",
        "a string",
        "an integer",
    ),
    ({"stream": "yes"}, "stream", "a boolean", "a string"),
    ({"stream": True, "stream_options": []}, "stream_options", "an object", "an array"),
    ({"n": "2"}, "n", "an integer", "a string"),
    ({"n": 1.0}, "n", "an integer", "a decimal"),
    ({"n": True}, "n", "an integer", "a boolean"),
    ({"max_tokens": "5"}, "max_tokens", "an integer", "a string"),
    ({"max_tokens": [5]}, "max_tokens", "an integer", "an array"),
    ({"max_completion_tokens": {}}, "max_completion_tokens", "an integer", "an object"),
    ({"stop": 5}, "stop", "one of a string or array of strings", "an integer"),
    ({"stop": ["a", None]}, "stop[1]", "a string", "null"),
    ({"temperature": "hot"}, "temperature", "a decimal", "a string"),
    ({"temperature": True}, "temperature", "a decimal", "a boolean"),
    ({"seed": 0.5}, "seed", "an integer", "a decimal"),
    ({"logit_bias": []}, "logit_bias", "an object", "an array"),
    ({"logit_bias": {"5": "x"}}, "logit_bias.5", "a decimal", "a string"),
    ({"logprobs": 1}, "logprobs", "a boolean", "an integer"),
    ({"truncation": 1}, "truncation", "a string", "an integer"),
    ({"metadata": {"a": 1}}, "metadata.a", "a string", "an integer"),
    ({"user": 1}, "user", "a string", "an integer"),
    ({"store": "no"}, "store", "a boolean", "a string"),
    ({"response_format": "text"}, "response_format", "an object", "a string"),
]


@pytest.mark.parametrize(("body", "param", "expected", "got"), INVALID_TYPES)
async def test_a_wrong_type_is_named_with_what_was_expected(
    body: dict[str, Any], param: str, expected: str, got: str
) -> None:
    async with fake_server() as server:
        reply = await server.chat(**body)
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": f"Invalid type for '{param}': expected {expected}, but got {got} instead.",
        "type": "invalid_request_error",
        "param": param,
        "code": "invalid_type",
    }


REFUSALS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"messages": []}, "messages", "empty_array", "minimum length 1, but got an empty array instead."),
    (
        {"messages": HELLO * 9},
        "messages",
        "array_above_max_length",
        "maximum length 8, but got an array with length 9",
    ),
    (
        {"messages": [{"content": "a"}]},
        "messages[0].role",
        "missing_required_parameter",
        "Missing required parameter",
    ),
    (
        {"messages": [{"role": "user"}]},
        "messages[0].content",
        "missing_required_parameter",
        "messages[0].content",
    ),
    ({"messages": user(None)}, "messages[0].content", "invalid_type", "got null"),
    (
        {"messages": user([{"type": "text"}])},
        "messages[0].content[0].text",
        "missing_required_parameter",
        "text",
    ),
    (
        {"messages": user([{"text": "a"}])},
        "messages[0].content[0].type",
        "missing_required_parameter",
        "type",
    ),
    (
        {"messages": [{"role": "bot", "content": "a"}]},
        "messages[0].role",
        "invalid_value",
        "Invalid value: 'bot'.",
    ),
    ({"messages": user("a\0b")}, "messages[0].content", "invalid_value", "NUL"),
    ({"messages": user([{"type": "video"}])}, "messages[0].content[0].type", "invalid_value", "'video'"),
    (
        {"messages": user([{"type": "image_url"}])},
        "messages[0].content[0].type",
        "unsupported_value",
        "image_url",
    ),
    (
        {"messages": user([{"type": "input_audio"}])},
        "messages[0].content[0].type",
        "unsupported_value",
        "text only",
    ),
    (
        {"messages": [*HELLO, {"role": "tool", "content": "a"}]},
        "messages[1].role",
        "unsupported_value",
        "tool",
    ),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}],
                }
            ]
        },
        "messages[0].tool_calls",
        "unsupported_parameter",
        "does not know tools",
    ),
    (
        {"messages": user("a" * 5000)},
        "messages",
        "context_length_exceeded",
        "maximum context length is 512 tokens",
    ),
    ({"n": 0}, "n", "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
    ({"n": 9}, "n", "integer_above_max_value", "Expected a value <= 8, but got 9 instead."),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
    ({"max_tokens": -(10**300)}, "max_tokens", "integer_below_min_value", "but got -1000"),
    ({"max_tokens": 10**4000}, "max_tokens", "integer_above_max_value", "integer above maximum value"),
    (
        {"max_tokens": 1, "max_completion_tokens": 2},
        "max_completion_tokens",
        "invalid_value",
        "different values",
    ),
    ({"seed": 2**63}, "seed", "integer_above_max_value", "integer above maximum value"),
    (
        {"temperature": 2.5},
        "temperature",
        "decimal_above_max_value",
        "Expected a value <= 2, but got 2.5 instead.",
    ),
    (
        {"temperature": -1},
        "temperature",
        "decimal_below_min_value",
        "Expected a value >= 0, but got -1 instead.",
    ),
    ({"temperature": 10**400}, "temperature", "decimal_above_max_value", "too large"),
    ({"top_p": 1.5}, "top_p", "decimal_above_max_value", "Expected a value <= 1"),
    ({"min_p": -0.5}, "min_p", "decimal_below_min_value", "Expected a value >= 0"),
    ({"top_k": -2}, "top_k", "integer_below_min_value", "Expected a value >= -1"),
    ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value", "Expected a value > 0"),
    ({"presence_penalty": 3}, "presence_penalty", "decimal_above_max_value", "Expected a value <= 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "decimal_below_min_value", "Expected a value >= -2"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5", "decimal_above_max_value", "Expected a value <= 100"),
    ({"logit_bias": {"hello": 1}}, "logit_bias", "invalid_value", "token id"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value", "99999"),
    (
        {"logit_bias": dict.fromkeys(map(str, range(1025)), 1)},
        "logit_bias",
        "object_above_max_properties",
        "1024",
    ),
    ({"top_logprobs": 1}, "top_logprobs", "invalid_value", "'logprobs' is enabled"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value", "<= 20"),
    (
        {"stop": ["a"] * 5},
        "stop",
        "array_above_max_length",
        "maximum length 4, but got an array with length 5",
    ),
    ({"stop": ""}, "stop", "empty_string", "empty string"),
    ({"stop": "a" * 1025}, "stop", "string_above_max_length", "maximum length 1024"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", "'stream' is enabled"),
    ({"truncation": "middle"}, "truncation", "invalid_value", "Supported values are: 'auto' or 'disabled'."),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "tools",
        "unsupported_parameter",
        "'tools' is not supported with this model: its chat template does not know tools",
    ),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value", "only allowed when 'tools' are specified"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter", "functions"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter", "audio"),
    ({"chat_template": "{{ 1 }}"}, "chat_template", "unsupported_parameter", "chat_template"),
    (
        {"add_generation_prompt": False},
        "add_generation_prompt",
        "unsupported_value",
        "continue_final_message",
    ),
    ({"continue_final_message": True}, "messages[0].role", "invalid_value", "continued"),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
        "invalid_value",
        "at most one",
    ),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value", "'text'"),
    ({"service_tier": "gold"}, "service_tier", "invalid_value", "Invalid value: 'gold'."),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "Invalid value: 'huge'."),
    ({"metadata": {str(at): "" for at in range(17)}}, "metadata", "object_above_max_properties", "16"),
    ({"user": "a" * 513}, "user", "string_above_max_length", "maximum length 512"),
]


@pytest.mark.parametrize(("body", "param", "code", "text"), REFUSALS)
async def test_a_bad_parameter_is_refused_with_its_code_and_path(
    body: dict[str, Any], param: str, code: str, text: str
) -> None:
    async with fake_server(settings={"max_messages": 8}) as server:
        reply = await server.chat(**body)
        assert not server.engine.requests, "nothing may reach the engine"
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert text in error["message"]
    assert list(error)[:4] == ["message", "type", "param", "code"]
    assert ERROR_CODES[code] == 400


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_parameter_is_named(missing: str) -> None:
    body = {"model": "test", "messages": HELLO}
    del body[missing]
    async with fake_server() as server:
        reply = await server.client.post("/v1/chat/completions", json=body)
    assert reply.json()["error"] == {
        "message": f"Missing required parameter: '{missing}'.",
        "type": "invalid_request_error",
        "param": missing,
        "code": "missing_required_parameter",
    }


async def test_long_values_are_not_repeated_at_length() -> None:
    async with fake_server() as server:
        for body in (
            {"model": "m" * 100_000},
            {"truncation": "t" * 100_000},
            {"metadata": {"k" * 100_000: 1}},
            {"max_tokens": 10**4000},
        ):
            assert len((await server.chat(**body)).content) < 1000
