"""Every refusal of a parameter of /v1/responses, and every parameter that is accepted without effect."""

from typing import Any

import pytest

from support.fake_server import fake_server
from support.responses import respond
from turnwise_server.api.errors import ERROR_CODES
from turnwise_server.api.responses.request import ResponseRequest


def message(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "hello"} | fields]


INVALID_TYPES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"model": 5}, "model", "a string", "an integer"),
    ({"input": 5}, "input", "one of a string or array of objects", "an integer"),
    ({"input": ["hello"]}, "input[0]", "an object", "a string"),
    ({"input": message(role=1)}, "input[0].role", "a string", "an integer"),
    ({"input": message(content=5)}, "input[0].content", "one of a string or array of objects", "an integer"),
    ({"input": message(content=["a"])}, "input[0].content[0]", "an object", "a string"),
    (
        {"input": message(content=[{"type": "input_text", "text": 1}])},
        "input[0].content[0].text",
        "a string",
        "an integer",
    ),
    ({"instructions": ["a"]}, "instructions", "a string", "an array"),
    ({"max_output_tokens": "20"}, "max_output_tokens", "an integer", "a string"),
    ({"stream": "yes"}, "stream", "a boolean", "a string"),
    ({"background": 1}, "background", "a boolean", "an integer"),
    ({"store": "no"}, "store", "a boolean", "a string"),
    ({"text": "json"}, "text", "an object", "a string"),
    ({"reasoning": "low"}, "reasoning", "an object", "a string"),
    ({"include": "all"}, "include", "an array", "a string"),
    ({"metadata": {"a": 1}}, "metadata.a", "a string", "an integer"),
    ({"previous_response_id": 7}, "previous_response_id", "a string", "an integer"),
]


@pytest.mark.parametrize(("body", "param", "expected", "got"), INVALID_TYPES)
async def test_a_wrong_type_is_refused_by_its_path(
    body: dict[str, Any], param: str, expected: str, got: str
) -> None:
    async with fake_server() as server:
        reply = await respond(server, **body)
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": f"Invalid type for '{param}': expected {expected}, but got {got} instead.",
        "type": "invalid_request_error",
        "param": param,
        "code": "invalid_type",
    }


def item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"input": [{"type": kind} | fields]}


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"input": message(content=[{"type": kind} | fields])}


REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": []}, "input", "empty_array"),
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": message() * 9}, "input", "array_above_max_length"),
    ({"input": [{"content": "a"}]}, "input[0].role", "missing_required_parameter"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": message(role="tool")}, "input[0].role", "invalid_value"),
    ({"input": message(content="a\0b")}, "input[0].content", "invalid_value"),
    ({"input": message(id="a b")}, "input[0].id", "invalid_value"),
    (part("input_text"), "input[0].content[0].text", "missing_required_parameter"),
    (part("refusal"), "input[0].content[0].refusal", "missing_required_parameter"),
    (part("input_image", image_url="x"), "input[0].content[0].type", "unsupported_value"),
    (part("input_file", file_id="x"), "input[0].content[0].type", "unsupported_value"),
    (part("input_audio"), "input[0].content[0].type", "unsupported_value"),
    (part("text", text="a"), "input[0].content[0].type", "unsupported_value"),
    (item("reasoning", summary=[]), "input[0].type", "unsupported_value"),
    (item("computer_call_output", output={}), "input[0].type", "unsupported_value"),
    (item("file_search_call"), "input[0].type", "unsupported_value"),
    (item("item_reference"), "input[0].id", "missing_required_parameter"),
    ({"input": [{"type": 5}]}, "input[0].type", "unsupported_value"),
    ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
    ({"max_output_tokens": 10**4000}, "max_output_tokens", "integer_above_max_value"),
    ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
    ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ({"truncation": "some"}, "truncation", "invalid_value"),
    ({"include": ["everything"]}, "include[0]", "invalid_value"),
    ({"text": {"verbosity": "huge"}}, "text.verbosity", "invalid_value"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
    ({"service_tier": "gold"}, "service_tier", "invalid_value"),
    ({"stream_options": {}}, "stream_options", "invalid_value"),
    ({"background": True, "store": False}, "background", "invalid_value"),
    ({"metadata": {str(at): "" for at in range(17)}}, "metadata", "object_above_max_properties"),
    ({"user": "a" * 513}, "user", "string_above_max_length"),
    ({"max_tool_calls": 0}, "max_tool_calls", "integer_below_min_value"),
    ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    ({"conversation": {"id": "conv_1"}}, "conversation", "unsupported_parameter"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    ({"context_management": [{"type": "compaction"}]}, "context_management", "unsupported_parameter"),
    ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
    ({"background_options": {"completion_window": "2h"}}, "background_options", "unsupported_parameter"),
    ({"previous_response_id": "resp_0"}, "previous_response_id", "previous_response_not_found"),
    ({"previous_response_id": "a\0"}, "previous_response_id", "invalid_value"),
    ({"previous_response_id": ""}, "previous_response_id", "empty_string"),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSALS)
async def test_a_bad_parameter_is_refused_with_its_code_and_path(
    body: dict[str, Any], param: str, code: str
) -> None:
    async with fake_server(settings={"max_messages": 8}) as server:
        reply = await respond(server, **body)
        assert not server.engine.requests, "nothing may reach the engine"
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert list(error)[:4] == ["message", "type", "param", "code"]
    assert ERROR_CODES[code] == 400
    assert len(reply.content) < 1000


async def test_missing_parameters_are_named() -> None:
    async with fake_server() as server:
        for body, missing in (({"model": "test"}, "input"), ({"input": "hello"}, "model")):
            error = (await server.client.post("/v1/responses", json=body)).json()["error"]
            assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


async def test_an_unknown_model_is_404() -> None:
    async with fake_server() as server:
        reply = await respond(server, model="no-such-model")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


WITHOUT_EFFECT: dict[str, Any] = {
    "conversation": None,
    "context_management": [],
    "image": {"context_compression": "auto"},
    "include": ["reasoning.encrypted_content", "file_search_call.results"],
    "max_tool_calls": 4,
    "metadata": {"a": "b"},
    "parallel_tool_calls": True,
    "prompt": None,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "in_memory",
    "reasoning": {"effort": "high", "summary": "detailed", "generate_summary": None},
    "safety_identifier": "s",
    "seed": 3,
    "service_tier": "auto",
    "store": None,
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": "auto",
    "tools": [],
    "user": "u",
}


async def test_parameters_without_effect_are_accepted_silently() -> None:
    async with fake_server() as server:
        reply = await respond(server, **WITHOUT_EFFECT)
        streamed = await respond(server, stream=True, stream_options={"include_obfuscation": False})
    assert reply.status_code == streamed.status_code == 200
    assert "x-ignored-params" not in reply.headers


async def test_unknown_parameters_are_named_in_a_header() -> None:
    async with fake_server() as server:
        reply = await respond(server, messages=[], **{"bad\r\nx-evil: 1": 1})
        counted = await server.client.post(
            "/v1/responses/input_tokens", json={"model": "test", "input": "a", "n": 2}
        )
    assert reply.headers["x-ignored-params"] == "messages"
    assert counted.headers["x-ignored-params"] == "n"


def test_every_parameter_of_the_sdk_is_known() -> None:
    """Whatever OpenAI's own client can send is supported, accepted or refused by name, never just ignored."""
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    assert set(ResponseCreateParamsBase.__annotations__) <= set(ResponseRequest.model_fields)
