"""The bytes of whole and streamed responses, as OpenAI's API sends them."""

import re
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from support.asgi_connection import until
from support.fake_server import encode, fake_server
from support.response_events import MESSAGE_EVENTS
from support.responses import connect, events_of, respond, text_of, types_of
from turnwise_server.api.responses.wire import ModelResponse

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9]{24,}")
FIXED: dict[str, Any] = {
    "object": "response",
    "status": "completed",
    "background": False,
    "error": None,
    "frequency_penalty": 0.0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "test",
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def neutral(response: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from response to response: ids and times."""
    output = [item | {"id": None} for item in response["output"]]
    return response | {"id": None, "created_at": None, "completed_at": None, "output": output}


async def test_a_whole_response_has_every_field() -> None:
    async with fake_server('Hi "you"! é🎉\n') as server:
        reply = await respond(server)
    response = reply.json()
    assert RESPONSE_ID.fullmatch(response["id"])
    assert isinstance(response["created_at"], int)
    assert response["completed_at"] >= response["created_at"]
    own = {"id", "created_at", "completed_at", "output", "usage"}
    assert {key: value for key, value in response.items() if key not in own} == FIXED
    [item] = response["output"]
    assert re.fullmatch(r"msg_[A-Za-z0-9]{24,}", item.pop("id"))
    assert item == {
        "type": "message",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": 'Hi "you"! é🎉\n'}],
        "role": "assistant",
    }
    usage = response["usage"]
    assert usage == {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": len(encode('Hi "you"! é🎉\n')) + 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }
    assert reply.headers["content-type"] == "application/json"


async def test_the_settings_of_the_request_are_echoed() -> None:
    settings: dict[str, Any] = {
        "instructions": "Be kind.",
        "max_output_tokens": 64,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_logprobs": 2,
        "truncation": "auto",
        "user": "u",
    }
    async with fake_server() as server:
        response = (
            await respond(
                server,
                **settings,
                reasoning={"effort": "low", "summary": "auto"},
                text={"verbosity": "high"},
                service_tier="flex",
            )
        ).json()
    assert {key: response[key] for key in settings} == settings
    assert response["reasoning"] == {"effort": "low", "summary": "auto"}
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "high"}
    assert response["service_tier"] == "default"


async def test_events_come_in_the_order_of_openai() -> None:
    async with fake_server("Hi!") as server:
        reply = await respond(server, stream=True)
    events = events_of(reply.text)
    assert types_of(events) == MESSAGE_EVENTS
    assert events[0]["sequence_number"] == 0
    assert "[DONE]" not in reply.text
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"


async def test_every_event_has_its_fields_and_no_others() -> None:
    async with fake_server("Hi!") as server:
        events = events_of((await respond(server, stream=True)).text)
    by_type = {event["type"].removeprefix("response."): event for event in events}
    item_id = by_type["output_item.added"]["item"]["id"]
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi!"}
    item = {"id": item_id, "type": "message", "role": "assistant"}
    expected = {
        "output_item.added": {
            "output_index": 0,
            "item": item | {"status": "in_progress", "content": []},
        },
        "content_part.added": place | {"part": part | {"text": ""}},
        "output_text.delta": place | {"delta": "!", "logprobs": []},
        "output_text.done": place | {"text": "Hi!", "logprobs": []},
        "content_part.done": place | {"part": part},
        "output_item.done": {"output_index": 0, "item": item | {"status": "completed", "content": [part]}},
    }
    for name, fields in expected.items():
        event = by_type[name]
        assert {key: event[key] for key in event if key not in ("type", "sequence_number")} == fields
    for name in ("created", "in_progress"):
        response = by_type[name]["response"]
        assert (response["status"], response["usage"], response["output"]) == ("in_progress", None, [])
        assert response["completed_at"] is None


async def test_the_sdk_accepts_every_event_and_response() -> None:
    options: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    async with fake_server("Hi!") as server:
        whole = await respond(server, **options)
        streamed = await respond(server, **options, stream=True)
    Response.model_validate(whole.json(), strict=True)
    for event in events_of(streamed.text):
        assert SDK_EVENT.validate_python(event).type == event["type"]


async def test_what_is_sent_is_what_the_document_says() -> None:
    async with fake_server("Hi!") as server:
        response = (await respond(server)).json()
    assert ModelResponse.model_validate(response).model_dump() == response


async def test_a_stream_adds_up_to_the_whole_response_for_every_length() -> None:
    """Text, items, usage, status and reason are equal, whatever the length cuts."""
    async with fake_server("naïve café 日本 🎉 and on it goes") as server:
        for max_output_tokens in range(16, 45):
            options = {"max_output_tokens": max_output_tokens, "top_logprobs": 1}
            whole = (await respond(server, **options)).json()
            events = events_of((await respond(server, **options, stream=True)).text)
            assert neutral(events[-1]["response"]) == neutral(whole)
            deltas = [event for event in events if event["type"] == "response.output_text.delta"]
            assert "".join(event["delta"] for event in deltas) == text_of(whole)
            logprobs = [token for event in deltas for token in event["logprobs"]]
            assert logprobs == whole["output"][0]["content"][0]["logprobs"]


async def test_a_response_cut_by_its_limit_is_incomplete_and_says_why() -> None:
    async with fake_server("the quick brown fox " * 9) as server:
        whole = (await respond(server, max_output_tokens=16)).json()
        events = events_of((await respond(server, max_output_tokens=16, stream=True)).text)
    assert types_of(events) == [*MESSAGE_EVENTS[:-1], "incomplete"]
    for response in (whole, events[-1]["response"]):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["completed_at"] is None
        assert response["output"][0]["status"] == "incomplete"
        assert response["usage"]["output_tokens"] == 16
    assert events[-2]["item"]["status"] == "incomplete"


async def test_a_model_that_says_nothing_still_sends_a_message() -> None:
    async with fake_server(script=[[]]) as server:
        whole = (await respond(server)).json()
        events = events_of((await respond(server, stream=True)).text)
    assert text_of(whole) == ""
    assert len(whole["output"]) == 1
    assert types_of(events) == [name for name in MESSAGE_EVENTS if name != "output_text.delta"]


@pytest.mark.parametrize("asked", [{"include": ["message.output_text.logprobs"]}, {"top_logprobs": 2}])
async def test_logprobs_come_when_they_are_asked_for(asked: dict[str, Any]) -> None:
    async with fake_server("é!") as server:
        response = (await respond(server, **asked)).json()
    tokens = response["output"][0]["content"][0]["logprobs"]
    assert bytes(value for token in tokens for value in token["bytes"]).decode() == "é!"
    assert all(len(token["top_logprobs"]) == asked.get("top_logprobs", 0) for token in tokens)


async def test_parameters_reach_the_engine() -> None:
    async with fake_server() as server:
        await respond(
            server,
            max_output_tokens=19,
            temperature=0.5,
            top_p=0.25,
            top_k=7,
            min_p=0.125,
            repetition_penalty=1.5,
            presence_penalty=1,
            frequency_penalty=-1,
        )
        sampling = server.engine.requests[-1].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (19, 0.5, 0.25)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (7, 0.125, 1.5)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert sampling.top_logprobs is None


async def test_a_truncated_conversation_says_how_much_was_dropped() -> None:
    roles = ["user", "assistant"] * 40
    long = [{"role": role, "content": f"hello number {at}"} for at, role in enumerate([*roles, "user"])]
    async with fake_server() as server:
        refused = await respond(server, input=long)
        reply = await respond(server, input=long, truncation="auto")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    assert error["n_prompt_tokens"] > error["n_ctx"] == 512
    dropped = int(reply.headers["x-context-truncated"])
    assert dropped > 0
    assert reply.json()["usage"]["input_tokens_details"]["x_truncated_messages"] == dropped


async def test_input_may_be_a_string_or_messages_and_reads_the_same() -> None:
    part = {"type": "input_text", "text": "hello"}
    inputs: list[Any] = [
        "hello",
        [{"role": "user", "content": "hello"}],
        [{"type": "message", "role": "user", "content": [part]}],
        [{"type": None, "role": "user", "content": [part], "id": "msg_1", "status": "completed"}],
    ]
    async with fake_server() as server:
        for content in inputs:
            assert (await respond(server, input=content)).status_code == 200
        prompts = {request.prompt_ids for request in server.engine.requests}
        await server.chat(messages=[{"role": "user", "content": "hello"}])
        assert prompts == {server.engine.requests[-1].prompt_ids}


async def test_an_empty_string_is_a_message_of_the_user() -> None:
    async with fake_server() as server:
        assert (await respond(server, input="")).status_code == 200
        await server.chat(messages=[{"role": "user", "content": ""}])
        own, chat = server.engine.requests
    assert own.prompt_ids == chat.prompt_ids


async def test_earlier_replies_and_instructions_read_as_in_a_chat() -> None:
    items = [
        {"role": "developer", "content": "Short."},
        {"role": "user", "content": "a"},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "b", "annotations": []}],
        },
        {"role": "user", "content": ""},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "c"},
    ]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Short."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": ""},
        {"role": "assistant", "refusal": "No."},
        {"role": "user", "content": "c"},
    ]
    async with fake_server() as server:
        assert (await respond(server, instructions="Be kind.", input=items)).status_code == 200
        await server.chat(messages=messages)
        first, second = server.engine.requests
    assert first.prompt_ids == second.prompt_ids


async def test_a_stream_that_breaks_fails_by_event_and_by_exception() -> None:
    """The first of its last two events is what OpenAI documents, the second is what makes SDKs raise."""
    async with fake_server("the quick brown fox " * 9, token_delay_s=0.01) as server:
        connection = connect(server, stream=True)
        await until(lambda: "output_text.delta" in connection.text)
        await server.engine.close()
        await connection.task
        events = events_of(connection.text)
        missing = await server.client.get(f"/v1/responses/{events[0]['response']['id']}")
    assert connection.is_complete
    failed, error = events[-2:]
    assert (failed["type"], error["type"]) == ("response.failed", "error")
    response = failed["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert (response["usage"], response["completed_at"]) == (None, None)
    assert response["output"][0]["status"] == "incomplete"
    assert SDK_EVENT.validate_python(failed).type == "response.failed"
    assert SDK_EVENT.validate_python(error).message == response["error"]["message"]
    assert error["error"] == {
        "type": "server_error",
        "code": "engine_unavailable",
        "message": error["message"],
        "param": None,
    }
    assert missing.status_code == 404, "what broke off is not kept"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_frees_its_slot_and_nothing_is_kept(stream: bool) -> None:
    async with fake_server("the quick brown fox " * 9, token_delay_s=0.01) as server:
        connection = connect(server, stream=stream)
        await until(lambda: server.engine.stats().generated_tokens > 4)
        connection.hang_up()
        await until(lambda: server.engine.running == 0, 1.0)
        await connection.task
        assert server.engine.cancelled == 1
