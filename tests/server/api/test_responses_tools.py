"""Tools and text formats of /v1/responses: flat on the wire, and otherwise as in chat completions."""

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from support.fake_server import FakeServer, fake_server
from support.response_events import MESSAGE_EVENTS
from support.responses import events_of, respond, text_of, types_of
from support.tool_templates import HERMES

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
TIME: dict[str, Any] = {"type": "function", "name": "time"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
FORMAT: dict[str, Any] = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def nested(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}


async def test_a_call_is_an_item_of_its_own() -> None:
    async with fake_server(call("weather", city="Bern"), template=HERMES) as server:
        response = (await respond(server, tools=[WEATHER])).json()
    Response.model_validate(response, strict=True)
    [item] = response["output"]
    assert item["id"].startswith("fc_")
    assert item["call_id"].startswith("call_")
    assert {key: item[key] for key in item if key not in ("id", "call_id")} == {
        "type": "function_call",
        "status": "completed",
        "arguments": '{"city": "Bern"}',
        "name": "weather",
    }
    assert response["status"] == "completed"
    assert (response["tools"], response["tool_choice"]) == ([WEATHER], "auto")


async def test_the_events_of_text_and_calls_follow_each_other() -> None:
    reply = f"Let me see.\n{call('weather', city='Bern')}\n{call('time')}"
    async with fake_server(reply, template=HERMES) as server:
        whole = (await respond(server, tools=[WEATHER, TIME])).json()
        events = events_of((await respond(server, tools=[WEATHER, TIME], stream=True)).text)
    a_call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    *message, completed = MESSAGE_EVENTS
    assert types_of(events) == [*message, *a_call, *a_call, completed]
    for event in events:
        assert SDK_EVENT.validate_python(event).type == event["type"]
    final = events[-1]["response"]
    assert text_of(final) == text_of(whole) == "Let me see."
    calls = [(item["name"], item["arguments"]) for item in final["output"][1:]]
    assert calls == [(item["name"], item["arguments"]) for item in whole["output"][1:]]
    assert calls == [("weather", '{"city": "Bern"}'), ("time", "{}")]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == final[
        "output"
    ]
    for index, item in enumerate(final["output"]):
        own = [event for event in events if event.get("item_id") == item["id"]]
        assert own
        assert {event["output_index"] for event in own} == {index}
    first = next(event for event in events if event.get("item", {}).get("type") == "function_call")
    assert (first["item"]["arguments"], first["item"]["status"]) == ("", "in_progress")


async def conversation(server: FakeServer, first: dict[str, Any]) -> list[dict[str, Any]]:
    """What a chat would hold after the call of a response."""
    made = first["output"][0]
    function = {"name": made["name"], "arguments": made["arguments"]}
    return [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "tool_calls": [{"id": made["call_id"], "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": made["call_id"], "content": "sunny"},
    ]


@pytest.mark.parametrize("way", ["previous_response_id", "items", "references"])
async def test_the_result_of_a_call_goes_back_to_the_model(way: str) -> None:
    async with fake_server(call("weather", city="Bern"), "Sunny.", template=HERMES) as server:
        first = (await respond(server, tools=[WEATHER])).json()
        made = first["output"][0]
        result = {"type": "function_call_output", "call_id": made["call_id"], "output": "sunny"}
        body: dict[str, Any]
        if way == "previous_response_id":
            body = {"previous_response_id": first["id"], "input": [result]}
        else:
            known = made if way == "items" else {"type": "item_reference", "id": made["id"]}
            body = {"input": [{"role": "user", "content": "hello"}, known, result]}
        second = (await respond(server, tools=[WEATHER], **body)).json()
        prompt = server.engine.requests[-1].prompt_ids
        await server.chat(messages=await conversation(server, first), tools=[nested(WEATHER)])
        assert server.engine.requests[-1].prompt_ids == prompt
        path = f"/v1/responses/{second['id']}/input_items"
        listed = (await server.client.get(path)).json()["data"][0]
    assert text_of(second) == "Sunny."
    assert listed == {"id": listed["id"], "status": "completed"} | result
    assert listed["id"].startswith("fco_")


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        "required",
        {"type": "function", "name": "weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
async def test_a_tool_choice_means_what_it_means_in_a_chat_and_is_echoed(choice: Any) -> None:
    chat_choice = choice
    if isinstance(choice, dict):
        name = nested({"type": "function", "name": "weather"})
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [name]}}
        chat_choice = name if choice["type"] == "function" else allowed
    async with fake_server(call("weather", city="Bern"), template=HERMES) as server:
        response = (await respond(server, tools=[WEATHER, TIME], tool_choice=choice)).json()
        await server.chat(tools=[nested(WEATHER), nested(TIME)], tool_choice=chat_choice)
        own, chat = (request.sampling.grammar for request in server.engine.requests)
    assert own == chat
    assert response["tool_choice"] == choice


async def test_a_call_cut_by_the_limit_is_incomplete() -> None:
    async with fake_server(call("weather", city="Bern" * 20), template=HERMES) as server:
        response = (
            await respond(server, tools=[WEATHER], tool_choice="required", max_output_tokens=60)
        ).json()
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["incomplete"]


BAD_TOOLS: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [{"name": "f"}]}, "tools[0].type", "missing_required_parameter"),
    ({"tools": ["f"]}, "tools[0]", "invalid_type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
    ({"tools": [TIME | {"name": "a b"}]}, "tools[0].name", "invalid_value"),
    ({"tools": [TIME, TIME]}, "tools[1].name", "invalid_value"),
    ({"tools": [TIME | {"parameters": 5}]}, "tools[0].parameters", "invalid_type"),
    ({"tools": [TIME | {"strict": 1}]}, "tools[0].strict", "invalid_type"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tools": [TIME], "tool_choice": 5}, "tool_choice", "invalid_type"),
    ({"tools": [TIME], "tool_choice": {"type": "file_search"}}, "tool_choice.type", "unsupported_value"),
    (
        {"tools": [TIME], "tool_choice": {"type": "function"}},
        "tool_choice.name",
        "missing_required_parameter",
    ),
    (
        {"tools": [TIME], "tool_choice": {"type": "function", "name": "g"}},
        "tool_choice",
        "invalid_value",
    ),
    (
        {
            "tools": [TIME],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "g"}],
            },
        },
        "tool_choice",
        "invalid_value",
    ),
    (
        {
            "input": [
                {"role": "user", "content": "a"},
                {"type": "function_call_output", "call_id": "call_1", "output": "b"},
            ]
        },
        "input[1].call_id",
        "invalid_value",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "missing_required_parameter"),
    (
        {"text": {"format": {"type": "json_schema", "name": "a"}}},
        "text.format.schema",
        "missing_required_parameter",
    ),
    ({"text": {"format": FORMAT | {"name": "a b"}}}, "text.format.name", "invalid_value"),
    ({"text": {"format": FORMAT | {"schema": []}}}, "text.format.schema", "invalid_type"),
    ({"text": {"format": FORMAT | {"schema": {"not": {}}}}}, "text.format.schema.not", "unsupported_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD_TOOLS)
async def test_a_bad_tool_or_format_is_refused_by_its_flat_path(
    body: dict[str, Any], param: str, code: str
) -> None:
    async with fake_server(template=HERMES) as server:
        reply = await respond(server, **body)
        assert not server.engine.requests
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, code)
    assert error["param"].startswith(param)
    assert "function." not in error["message"]


async def test_a_template_without_tools_refuses_them_by_name() -> None:
    calls = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]
    async with fake_server() as server:
        tools = (await respond(server, tools=[TIME])).json()["error"]
        items = (await respond(server, input=calls)).json()["error"]
    assert (tools["param"], tools["code"]) == ("tools", "unsupported_parameter")
    assert (items["param"], items["code"]) == ("input[0].type", "unsupported_parameter")


async def test_a_text_format_holds_the_text_to_it_and_is_echoed() -> None:
    async with fake_server('{"a": 1}') as server:
        response = (await respond(server, text={"format": FORMAT})).json()
        in_object = (await respond(server, text={"format": {"type": "json_object"}})).json()
        await server.chat(
            response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        )
        own, _, chat = (request.sampling.grammar for request in server.engine.requests)
    Response.model_validate(response, strict=True)
    assert own == chat
    assert own is not None
    assert response["text"]["format"] == FORMAT | {"description": None}
    assert in_object["text"]["format"] == {"type": "json_object"}


async def test_tools_count_in_the_input_tokens() -> None:
    async with fake_server(template=HERMES) as server:
        body = {"model": "test", "input": "hello", "tools": [WEATHER]}
        counted = (await server.client.post("/v1/responses/input_tokens", json=body)).json()
        used = (await server.client.post("/v1/responses", json=body)).json()["usage"]["input_tokens"]
        less = (await respond(server)).json()["usage"]["input_tokens"]
    assert counted["input_tokens"] == used > less
