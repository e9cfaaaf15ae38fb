"""Tools over HTTP: what is accepted, what the engine is asked for, and calls whole and streamed."""

import json
from typing import Any

import httpx2
import pytest

from support.fake_server import TOKENIZER, FakeServer, encode, fake_server
from support.tool_templates import HERMES, LLAMA

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n</tool_call>'
ARGUMENTS = '{"city": "Oslo", "days": [1, 2]}'
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}


def call_of(name: str = "get_weather") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def chunks(reply: httpx2.Response) -> list[dict[str, Any]]:
    frames = reply.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def assembled(reply: httpx2.Response, index: int = 0) -> dict[str, Any]:
    """What a client makes of a stream: content, calls without their ids, finish reason, logprobs."""
    content, calls, reason, logprobs = "", [], None, []  # type: ignore[var-annotated]
    for chunk in chunks(reply):
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            content += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(calls)
                    assert call["type"] == "function"
                    assert call["function"]["arguments"] == ""
                    calls.append([call["function"]["name"], ""])
                else:
                    assert set(call) == {"index", "function"}
                    assert set(call["function"]) == {"arguments"}
                    calls[call["index"]][1] += call["function"]["arguments"]
            reason = choice["finish_reason"] or reason
            logprobs += choice.get("logprobs", {}).get("content", [])
    return {"content": content, "calls": calls, "reason": reason, "logprobs": logprobs}


def whole(reply: httpx2.Response, index: int = 0) -> dict[str, Any]:
    choice = reply.json()["choices"][index]
    calls = choice["message"].get("tool_calls") or []
    assert all(call["id"].startswith("call_") and call["type"] == "function" for call in calls)
    return {
        "content": choice["message"]["content"] or "",
        "calls": [[call["function"]["name"], call["function"]["arguments"]] for call in calls],
        "reason": choice["finish_reason"],
        "logprobs": (choice["logprobs"] or {}).get("content", []),
    }


async def test_a_call_byte_for_byte() -> None:
    async with fake_server(CALL, template=HERMES) as server:
        choice = (await server.chat(tools=[WEATHER])).json()["choices"][0]
    call_id = choice["message"]["tool_calls"][0]["id"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "tool_calls": [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ARGUMENTS},
                }
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }


async def test_a_streamed_call_byte_for_byte() -> None:
    async with fake_server(CALL, template=HERMES) as server:
        frames = chunks(await server.chat(tools=[WEATHER], stream=True))
    call_id = frames[1]["choices"][0]["delta"]["tool_calls"][0]["id"]
    assert [frame["choices"][0]["delta"] for frame in frames] == [
        {"role": "assistant", "content": "", "refusal": None},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS}}]},
        {},
    ]
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == [None, None, None, "tool_calls"]


async def test_arguments_that_a_grammar_holds_are_streamed_as_they_come() -> None:
    async with fake_server(CALL, template=HERMES) as server:
        reply = await server.chat(tools=[WEATHER], tool_choice="required", stream=True)
    assert assembled(reply)["calls"] == [["get_weather", ARGUMENTS]]
    assert len(chunks(reply)) > 10


async def test_a_reply_without_calls_has_no_tool_calls() -> None:
    async with fake_server("Hi!", template=HERMES) as server:
        choice = (await server.chat(tools=[WEATHER])).json()["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi!", "stop")


REPLIES = [
    f"Let me see.\n{CALL}",
    f"{CALL}\n{CALL.replace('Oslo', 'Rome é🎉')}",
    "no call <tool_call> at all",
    '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
]


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("text", REPLIES)
async def test_streamed_and_whole_calls_are_equal_for_every_max_tokens(text: str, choice: str) -> None:
    """Cut by length is `length`, whatever was called; until then arguments are a part of the whole."""
    full = len(encode(text))
    async with fake_server(text, template=HERMES) as server:
        for max_tokens in range(1, full + 2, 1 + full // 12):
            options: dict[str, Any] = {
                "tools": [WEATHER],
                "tool_choice": choice,
                "max_tokens": max_tokens,
                "logprobs": True,
            }
            one, other = await server.chat(**options), await server.chat(**options, stream=True)
            assert whole(one) == assembled(other)
            assert (whole(one)["reason"] == "length") == (max_tokens <= full)
            assert one.json()["usage"]["completion_tokens"] == min(max_tokens, full + 1)
            assert len(whole(one)["logprobs"]) == min(max_tokens, full)
        done = whole(await server.chat(tools=[WEATHER], tool_choice=choice))
        assert done["reason"] == ("tool_calls" if done["calls"] else "stop")
        for _, arguments in done["calls"]:
            assert isinstance(json.loads(arguments), dict)


async def test_every_choice_has_its_own_calls() -> None:
    script = [encode(CALL), encode("Hi!")]
    async with fake_server(script=script, template=HERMES) as server:
        one = await server.chat(tools=[WEATHER], n=2)
        other = await server.chat(tools=[WEATHER], n=2, stream=True)
    for index in range(2):
        assert whole(one, index) == assembled(other, index)
    assert [choice["finish_reason"] for choice in one.json()["choices"]] == ["tool_calls", "stop"]


async def test_one_call_ends_the_reply_where_calls_are_not_parallel() -> None:
    async with fake_server(f"{CALL}\n{CALL}", template=HERMES) as server:
        reply = await server.chat(tools=[WEATHER], parallel_tool_calls=False)
    assert len(whole(reply)["calls"]) == 1
    assert whole(reply)["reason"] == "tool_calls"
    assert reply.json()["usage"]["completion_tokens"] < len(encode(CALL)) + 1


async def test_stop_strings_are_looked_for_in_content_alone() -> None:
    async with fake_server(f"Now. {CALL}", "Oslo is cold", template=HERMES) as server:
        called = await server.chat(tools=[WEATHER], stop=["Oslo", "cold"])
        said = await server.chat(tools=[WEATHER], stop=["Oslo", "cold"])
    assert whole(called)["calls"] == [["get_weather", ARGUMENTS]]
    assert (whole(said)["content"], whole(said)["reason"]) == ("", "stop")


async def test_a_named_tool_is_forced_and_finishes_as_a_call() -> None:
    async with fake_server(CALL, template=HERMES) as server:
        reply = await server.chat(tools=[TIME, WEATHER], tool_choice=call_of())
        grammar = server.engine.requests[-1].sampling.grammar
    assert whole(reply)["reason"] == "tool_calls"
    assert grammar is not None
    assert "get_weather" in grammar
    assert "get_time" not in grammar


def prompt(server: FakeServer) -> str:
    return str(TOKENIZER.decode(server.engine.requests[-1].prompt_ids))


async def test_what_the_engine_is_asked_for_follows_the_choice() -> None:
    async with fake_server("Hi!", template=HERMES) as server:
        grammars, prompts = [], []
        for options in (
            {},
            {"tool_choice": "none"},
            {"tool_choice": "required"},
            {"tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]},
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [call_of()]},
                }
            },
            {"tool_choice": "required", "response_format": {"type": "json_object"}},
            {"tool_choice": "auto", "response_format": {"type": "json_object"}},
            {"tool_choice": "none", "response_format": {"type": "json_object"}},
        ):
            reply = await server.chat(**({"tools": [WEATHER, TIME]} | options))
            assert reply.status_code == 200, reply.text
            grammars.append(server.engine.requests[-1].sampling.grammar or "")
            prompts.append(prompt(server))
    assert [bool(grammar) for grammar in grammars] == [False, False, True, True, True, True, True, True]
    assert ["calls" in grammar for grammar in grammars[2:]] == [True, True, True, True, True, False]
    assert ["get_weather" in text for text in prompts] == [True, False, True, True, True, True, True, False]
    assert ["get_time" in grammar for grammar in grammars[2:5]] == [True, False, False]
    assert all("get_time" in text for text in prompts[4:5])


async def test_calls_and_results_go_back_to_the_model() -> None:
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ARGUMENTS},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "snow"}]},
    ]
    async with fake_server("Snow.", template=HERMES) as server:
        reply = await server.chat(messages=history, tools=[WEATHER])
        assert reply.status_code == 200
        assert CALL.replace("<tool_call>\n", "") in prompt(server)
        assert "<tool_response>\nsnow\n</tool_response>" in prompt(server)
        assert (await server.chat(messages=history)).status_code == 200


def function(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f"} | fields}]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [1]}, "tools[0]", "invalid_type"),
    ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_value"),
    ({"tools": function(name="")}, "tools[0].function.name", "invalid_value"),
    ({"tools": function(name="a" * 65)}, "tools[0].function.name", "invalid_value"),
    ({"tools": function(name="f<|im_end|>")}, "tools[0].function.name", "invalid_value"),
    ({"tools": function(parameters=[])}, "tools[0].function.parameters", "invalid_type"),
    ({"tools": function(description="\0")}, "tools[0].function.description", "invalid_value"),
    ({"tools": function(strict="yes")}, "tools[0].function.strict", "invalid_type"),
    ({"tools": function() * 2}, "tools[1].function.name", "invalid_value"),
    ({"tools": function() * 129}, "tools", "array_above_max_length"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tool_choice": call_of()}, "tool_choice", "invalid_value"),
    ({"tools": [WEATHER], "tool_choice": "always"}, "tool_choice", "invalid_value"),
    ({"tools": [WEATHER], "tool_choice": 3}, "tool_choice", "invalid_type"),
    ({"tools": [WEATHER], "tool_choice": {}}, "tool_choice.type", "missing_required_parameter"),
    ({"tools": [WEATHER], "tool_choice": {"type": "custom"}}, "tool_choice.type", "unsupported_value"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "function"}},
        "tool_choice.function",
        "missing_required_parameter",
    ),
    ({"tools": [WEATHER], "tool_choice": call_of("get_time")}, "tool_choice", "invalid_value"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}},
        "tool_choice.allowed_tools",
        "missing_required_parameter",
    ),
    (
        {
            "tools": [WEATHER],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [call_of("get_time")]},
            },
        },
        "tool_choice",
        "invalid_value",
    ),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
    (
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "call_1"}]},
        "messages[0].tool_call_id",
        "invalid_value",
    ),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "unsupported_value"),
    (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}]},
        "messages[0].tool_calls[0].function",
        "missing_required_parameter",
    ),
    (
        {"tools": function(parameters={"type": "object", "not": {}}), "tool_choice": "required"},
        "tools[0].function.parameters.not",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSED)
async def test_what_is_wrong_about_tools_is_refused_by_name(
    body: dict[str, Any], param: str, code: str
) -> None:
    async with fake_server(template=HERMES) as server:
        reply = await server.chat(**body)
        assert server.engine.requests == []
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


async def test_no_tools_are_nothing_to_refuse() -> None:
    """Clients send these whether they have tools or not."""
    async with fake_server("Hi!") as server:
        nothing: list[dict[str, Any]] = [
            {"tools": []},
            {"tools": None, "tool_choice": "auto"},
            {"tool_choice": "none"},
        ]
        for options in nothing:
            assert (await server.chat(**options, parallel_tool_calls=True)).status_code == 200


async def test_a_format_beside_tools_that_begin_like_json_is_refused() -> None:
    async with fake_server("Hi!", template=LLAMA) as server:
        reply = await server.chat(tools=[WEATHER], response_format={"type": "json_object"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format")


async def test_a_bare_call_is_told_from_a_bare_answer() -> None:
    call = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
    async with fake_server(call, '{"answer": 42}', template=LLAMA) as server:
        first, second = [whole(await server.chat(tools=[WEATHER])) for _ in range(2)]
    assert first["calls"] == [["get_weather", '{"city": "Oslo"}']]
    assert (second["content"], second["reason"]) == ('{"answer": 42}', "stop")


async def test_tools_count_as_prompt_tokens_and_must_fit() -> None:
    async with fake_server("Hi!", template=HERMES) as server:
        without = (await server.chat()).json()["usage"]["prompt_tokens"]
        with_tools = (await server.chat(tools=[WEATHER])).json()["usage"]["prompt_tokens"]
        huge = function(description="word " * 5000)
        reply = await server.chat(tools=huge)
    assert with_tools > without + 20
    assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_a_model_that_takes_no_grammars_calls_freely_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    async with fake_server(CALL, template=HERMES) as server:
        monkeypatch.setattr(server.services.models.default.chat.prompts, "_takes_grammars", False)
        free = await server.chat(tools=[WEATHER])
        forced = await server.chat(tools=[WEATHER], tool_choice="required")
        held = await server.chat(tools=[strict])
    assert whole(free)["calls"] == [["get_weather", ARGUMENTS]]
    assert (forced.status_code, forced.json()["error"]["param"]) == (400, "tool_choice")
    assert (held.status_code, held.json()["error"]["param"]) == (400, "tools")
