"""POST /v1/messages: the bytes of Anthropic's API, whole, streamed and refused."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, TOKENIZER, FakeServer, encode, fake_server
from support.tool_templates import HERMES
from turnwise_server.auth import KeyRing, hash_key

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
USED: dict[str, Any] = {
    "role": "assistant",
    "content": [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}},
    ],
}
SUN = {"format": {"type": "json_schema", "schema": {"type": "boolean"}}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny"}]}


async def ask(server: FakeServer, path: str = "/v1/messages", **body: Any) -> httpx2.Response:
    limit = {} if path.endswith("count_tokens") else {"max_tokens": 64}
    return await server.client.post(path, json={"model": "test", "messages": HELLO} | limit | body)


def events(reply: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a stream, each under the name that its data says."""
    frames = [frame for frame in reply.text.split("\n\n") if frame]
    found = []
    for frame in frames:
        name, _, data = frame.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def whole_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the events of a stream add up to."""
    message: dict[str, Any] = found[0]["message"]
    inputs: dict[int, str] = {}
    for event in found[1:]:
        match event:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(message["content"])
                message["content"].append(block)
            case {"type": "content_block_delta", "index": index, "delta": {"text": text}}:
                message["content"][index]["text"] += text
            case {"type": "content_block_delta", "index": index, "delta": {"partial_json": part}}:
                inputs[index] = inputs.get(index, "") + part
            case {"type": "message_delta", "delta": delta, "usage": usage}:
                message |= delta | {"usage": usage}
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text)
    return message


def prompt_of(server: FakeServer) -> str:
    return str(TOKENIZER.decode(server.engine.requests[-1].prompt_ids))


async def test_a_whole_message_is_anthropics_object() -> None:
    async with fake_server("Hi!") as server:
        reply = await ask(server)
    content = reply.json()
    assert content.pop("id").startswith("msg_")
    assert content == {
        "type": "message",
        "role": "assistant",
        "model": "test",
        "content": [{"type": "text", "text": "Hi!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(server.engine.requests[-1].prompt_ids),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(encode("Hi!")) + 1,
        },
    }
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


async def test_a_stream_is_its_events_in_order() -> None:
    async with fake_server(script=[encode("!")]) as server:
        reply = await ask(server, stream=True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["request-id"].startswith("req_")
    assert [event["type"] for event in events(reply)] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert reply.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')


async def test_the_stream_opens_before_the_first_token() -> None:
    async with fake_server(prefill_delay_s=60) as server:
        body = {"model": "test", "messages": HELLO, "max_tokens": 8, "stream": True}
        connection = AsgiConnection(server.app, body, path="/v1/messages")
        await until(lambda: "event: ping" in connection.text)
        assert connection.text.startswith("event: message_start\n")
        connection.hang_up()
        await connection.task
        await until(lambda: server.engine.running == 0, 1.0)


@settings(max_examples=25)
@given(
    text=st.text(alphabet="ab é🎉\n", max_size=16),
    max_tokens=st.integers(1, 20),
    stops=st.lists(st.sampled_from(["a", "b ", "🎉"]), max_size=2, unique=True),
)
async def test_a_stream_adds_up_to_the_whole_message(text: str, max_tokens: int, stops: list[str]) -> None:
    options: dict[str, Any] = {"max_tokens": max_tokens, "stop_sequences": stops}
    async with fake_server(script=[encode(text)]) as server:
        whole = (await ask(server, **options)).json()
        streamed = whole_of(events(await ask(server, **options, stream=True)))
    assert whole.pop("id") != streamed.pop("id")
    assert streamed == whole


@pytest.mark.parametrize(
    ("asked", "reason", "sequence", "text"),
    [
        ({}, "end_turn", None, "one two three"),
        ({"max_tokens": 4}, "max_tokens", None, None),
        ({"stop_sequences": ["three", "two"]}, "stop_sequence", "two", "one "),
        ({"stop_sequences": []}, "end_turn", None, "one two three"),
    ],
)
async def test_a_reply_says_why_it_stopped(
    asked: dict[str, Any], reason: str, sequence: str | None, text: str | None
) -> None:
    async with fake_server("one two three") as server:
        reply = (await ask(server, **asked)).json()
    assert (reply["stop_reason"], reply["stop_sequence"]) == (reason, sequence)
    assert text is None or reply["content"] == [{"type": "text", "text": text}]


async def test_a_reply_without_text_has_no_content() -> None:
    async with fake_server(script=[[]]) as server:
        assert (await ask(server)).json()["content"] == []
        assert "content_block" not in (await ask(server, stream=True)).text


async def test_system_texts_and_blocks_become_the_prompt() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
    ]
    async with fake_server() as server:
        await ask(server, messages=messages, system=[{"type": "text", "text": "Be kind."}])
        in_blocks = prompt_of(server)
        await ask(server, messages=messages, system="Be kind.")
        assert prompt_of(server) == in_blocks
    assert in_blocks == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc\nd<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_a_last_message_of_the_assistant_is_continued() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "The answer is ("}]
    async with fake_server("B)") as server:
        reply = (await ask(server, messages=messages)).json()
        assert prompt_of(server).endswith("<|im_start|>assistant\nThe answer is (")
    assert reply["content"] == [{"type": "text", "text": "B)"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_a_tool_is_a_block_beside_the_text(stream: bool) -> None:
    async with fake_server("Let me see.\n" + CALL, template=HERMES) as server:
        reply = await ask(server, tools=[WEATHER], stream=stream, max_tokens=200)
        assert '"name": "weather"' in prompt_of(server)
    content = whole_of(events(reply)) if stream else reply.json()
    text, call = content["content"]
    assert text["type"] == "text"
    assert text["text"].strip() == "Let me see."
    assert call.pop("id").startswith("toolu_")
    assert call == {"type": "tool_use", "name": "weather", "input": {"city": "Bern"}}
    assert content["stop_reason"] == "tool_use"


async def test_a_call_that_was_cut_says_max_tokens_and_shows_what_there_is() -> None:
    said = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern", "day": "Mon'
    async with fake_server(said + 'day"}}\n</tool_call>', template=HERMES) as server:
        reply = (await ask(server, tools=[WEATHER], max_tokens=len(encode(said)))).json()
    assert reply["stop_reason"] == "max_tokens"
    assert [block["input"] for block in reply["content"]] == [{"city": "Bern"}]


async def test_results_of_tools_are_given_back_to_the_model() -> None:
    messages = [*HELLO, USED, {"role": "user", "content": [RESULT, {"type": "text", "text": "And now?"}]}]
    async with fake_server(template=HERMES) as server:
        reply = await ask(server, messages=messages, tools=[WEATHER])
        assert reply.status_code == 200, reply.text
        prompt = prompt_of(server)
        counted = await ask(server, "/v1/messages/count_tokens", messages=messages, tools=[WEATHER])
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>' in prompt
    assert "<tool_response>\nsunny\n</tool_response>" in prompt
    assert prompt.endswith("<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n")
    assert counted.json() == {"input_tokens": reply.json()["usage"]["input_tokens"]}


@pytest.mark.parametrize(
    "choice", [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "none"}]
)
async def test_the_choice_of_tools_is_anthropics(choice: dict[str, Any]) -> None:
    choice |= {"disable_parallel_tool_use": True}
    async with fake_server(CALL, template=HERMES) as server:
        reply = await ask(server, tools=[WEATHER], tool_choice=choice, max_tokens=200)
    assert reply.status_code == 200, reply.text
    called = [block["type"] for block in reply.json()["content"]] == ["tool_use"]
    assert called == (choice["type"] != "none")


async def test_a_reply_can_be_held_to_a_json_schema() -> None:
    async with fake_server("true") as server:
        assert (await ask(server, output_config=SUN)).status_code == 200
        assert server.engine.requests[-1].sampling.grammar


async def test_tokens_are_counted_as_a_message_would_read_them() -> None:
    asked: dict[str, Any] = {
        "system": "Be kind.",
        "messages": [*HELLO, {"role": "assistant", "content": "Once"}],
    }
    async with fake_server() as server:
        counted = await ask(server, "/v1/messages/count_tokens", **asked)
        reply = await ask(server, **asked)
    assert counted.json() == {"input_tokens": reply.json()["usage"]["input_tokens"]}
    assert counted.headers["request-id"].startswith("req_")


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": None}, "max_tokens", "invalid_type"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": HELLO * 2049}, "messages", "array_above_max_length"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": "a\0"}]}, "messages[0].content", "invalid_value"),
    (user({"type": "image", "source": {}}), "messages[0].content[0].type", "unsupported_value"),
    (user({"type": "document", "source": {}}), "messages[0].content[0].type", "unsupported_value"),
    (
        user({"type": "tool_use", "id": "a", "name": "b", "input": {}}),
        "messages[0].content[0].type",
        "unsupported_value",
    ),
    (user({"type": "text"}), "messages[0].content[0].text", "missing_required_parameter"),
    (user({"type": "tool_result"}), "messages[0].content[0].tool_use_id", "missing_required_parameter"),
    (
        user({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}),
        "messages[0].content[0].content[0].type",
        "unsupported_value",
    ),
    (
        {
            "system": "a",
            "messages": [*HELLO, {"role": "user", "content": [{"type": "text", "text": "a"}, RESULT]}],
        },
        "messages[1].content[1].type",
        "unsupported_value",
    ),
    ({"system": "a", "messages": [*HELLO, USED, *HELLO]}, "messages[1].content", "unsupported_parameter"),
    ({"system": [{"type": "image"}]}, "system[0].type", "unsupported_value"),
    ({"system": 5}, "system", "invalid_type"),
    ({"temperature": 1.5}, "temperature", "decimal_above_max_value"),
    ({"top_k": -1}, "top_k", "integer_below_min_value"),
    ({"stop_sequences": ["a"] * 17}, "stop_sequences", "array_above_max_length"),
    ({"stop_sequences": [""]}, "stop_sequences[0]", "empty_string"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking", "unsupported_value"),
    ({"thinking": {"type": "adaptive"}}, "thinking", "unsupported_value"),
    ({"tools": [WEATHER]}, "tools", "unsupported_parameter"),
    ({"tools": [{"name": "w"}]}, "tools[0].input_schema", "missing_required_parameter"),
    ({"tools": [WEATHER | {"name": "a b"}]}, "tools[0].name", "invalid_value"),
    ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type", "unsupported_value"),
    ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "tool"}, "tools": [WEATHER]}, "tool_choice.name", "missing_required_parameter"),
    ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [WEATHER]}, "tool_choice.name", "invalid_value"),
    ({"tools": [WEATHER, WEATHER]}, "tools", "invalid_value"),
    (
        {"output_config": {"format": {"type": "json_schema"}}},
        "output_config.format.schema",
        "missing_required_parameter",
    ),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": 5}}}},
        "output_config.format.schema.type",
        "invalid_value",
    ),
    ({"output_config": SUN, "stop_sequences": ["a"]}, "stop_sequences", "invalid_value"),
    (
        {"output_config": SUN, "messages": [{"role": "assistant", "content": "{"}]},
        "messages[0].role",
        "invalid_value",
    ),
    ({"mcp_servers": [{}]}, "mcp_servers", "unsupported_parameter"),
    ({"container": "c"}, "container", "unsupported_parameter"),
    ({"thread": {"type": "create"}}, "thread", "thread_unsupported_request"),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSED)
async def test_what_cannot_be_served_is_refused_by_name(body: dict[str, Any], param: str, code: str) -> None:
    async with fake_server() as server:
        reply = await ask(server, **body)
        assert not server.engine.requests
    assert reply.status_code == 400
    content = reply.json()
    assert list(content) == ["type", "error", "request_id"]
    assert content["type"] == "error"
    assert content["request_id"] == reply.headers["request-id"]
    error = content["error"]
    assert error["type"] == "invalid_request_error"
    assert error["details"] == {"error_code": code, "param": param}
    assert error["message"]


async def test_a_result_of_no_call_is_refused_by_its_place() -> None:
    messages = [*HELLO, USED, {"role": "user", "content": [RESULT, RESULT | {"tool_use_id": "toolu_2"}]}]
    async with fake_server(template=HERMES) as server:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            error = (await ask(server, path, messages=messages, system="a")).json()["error"]
            assert error["details"]["param"] == "messages[2].content[1].tool_use_id"
            assert "messages[2].content[1].tool_use_id" in error["message"]


async def test_without_a_limit_on_the_reply_nothing_is_written() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/messages", json={"model": "test", "messages": HELLO})
    assert reply.json()["error"]["details"]["param"] == "max_tokens"


async def test_what_changes_nothing_is_accepted() -> None:
    accepted: dict[str, Any] = {
        "thinking": {"type": "disabled"},
        "metadata": {"user_id": "ada"},
        "service_tier": "auto",
        "output_config": {"effort": "high"},
        "cache_control": {"type": "ephemeral"},
        "mcp_servers": [],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
    }
    async with fake_server() as server:
        reply = await ask(server, **accepted, inference_geo="eu")
    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "inference_geo"


async def test_a_conversation_that_does_not_fit_is_truncated_and_says_so() -> None:
    messages = [{"role": role, "content": "hello " * 20} for _ in range(6) for role in ("user", "assistant")]
    async with fake_server(context_length=128) as server:
        reply = await ask(server, messages=[*messages, *HELLO])
        refused = await ask(server, messages=[*messages, *HELLO], truncation="disabled")
    assert int(reply.headers["x-context-truncated"]) > 0
    assert refused.json()["error"]["details"]["error_code"] == "context_length_exceeded"
    assert "128 tokens" in refused.json()["error"]["message"]


Request = Callable[[httpx2.AsyncClient], Any]


def posts(body: Any, **more: Any) -> Request:
    return lambda client: client.post("/v1/messages", json=body, **more)


@pytest.mark.parametrize(
    ("request_it", "status", "kind"),
    [
        (lambda client: client.post("/v1/messages", content=b"{"), 400, "invalid_request_error"),
        (lambda client: client.get("/v1/messages"), 405, "invalid_request_error"),
        (posts({"model": "x", "messages": HELLO, "max_tokens": 5}), 404, "not_found_error"),
        (posts({}, headers={"content-type": "image/png"}), 415, "invalid_request_error"),
        (posts({}, headers={"host": "evil.example"}), 403, "permission_error"),
        (posts({"a": "b" * 5000}), 413, "request_too_large"),
    ],
)
async def test_every_refusal_has_anthropics_form(request_it: Request, status: int, kind: str) -> None:
    async with fake_server(settings={"max_body_bytes": 4096}) as server:
        reply = await request_it(server.client)
    assert reply.status_code == status
    content = reply.json()
    assert content["type"] == "error"
    assert content["error"]["type"] == kind
    assert content["request_id"] == reply.headers["request-id"]
    assert int(reply.headers["content-length"]) == len(reply.content)


async def test_a_key_is_needed_and_may_come_as_anthropics_clients_send_it() -> None:
    async with fake_server(keys=KeyRing([hash_key("secret")])) as server:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            refused = await ask(server, path)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"
            server.client.headers["x-api-key"] = "secret"
            assert (await ask(server, path)).status_code == 200
            del server.client.headers["x-api-key"]


async def test_a_limit_of_the_key_is_a_rate_limit_error() -> None:
    async with fake_server(keys=KeyRing([hash_key("secret", "ada rpm=1")])) as server:
        server.client.headers["x-api-key"] = "secret"
        assert (await ask(server)).status_code == 200
        assert (await ask(server, "/v1/messages/count_tokens")).status_code == 200
        reply = await ask(server)
    assert reply.status_code == 429
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert int(reply.headers["retry-after"]) > 0


async def test_unknown_parameters_are_refused_where_the_server_is_strict() -> None:
    async with fake_server(settings={"strict_params": True}) as server:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            details = (await ask(server, path, inference_geo="eu")).json()["error"]["details"]
            assert details == {"error_code": "unknown_parameter", "param": "inference_geo"}


async def test_a_full_queue_is_said_to_be_an_overload() -> None:
    async with fake_server(max_batch=1, max_queued_requests=0, token_delay_s=60) as server:
        running = AsgiConnection(server.app, {"model": "test", "messages": HELLO})
        await until(lambda: server.engine.running == 1)
        reply = await ask(server)
        running.hang_up()
        await running.task
    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "overloaded_error"
    assert int(reply.headers["retry-after"]) > 0


async def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    async with fake_server("a " * 40, token_delay_s=0.01) as server:
        body = {"model": "test", "messages": HELLO, "max_tokens": 64, "stream": True}
        connection = AsgiConnection(server.app, body, path="/v1/messages")
        await until(lambda: "text_delta" in connection.text)
        server.engine.die()
        await connection.task
    name, _, data = connection.text.split("\n\n")[-2].partition("\n")
    assert name == "event: error"
    content = json.loads(data.removeprefix("data: "))
    assert content["error"]["type"] == "overloaded_error"
    assert content["request_id"].startswith("req_")
    assert "message_stop" not in connection.text


async def test_other_routes_keep_openais_form() -> None:
    async with fake_server() as server:
        reply = await server.client.post("/v1/messages/other", json={})
        assert reply.status_code == 404
        assert list(reply.json()) == ["error"]
        assert "request-id" not in (await server.chat()).headers
