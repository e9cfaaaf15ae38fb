"""The openai Python SDK, synchronous and asynchronous, on chat, completions and responses.

It is among this project's own packages, so it runs here. More of it: end_to_end/test_openai_sdk.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field

from foreign_clients.conftest import KEY, LIMITED_KEY, Servers
from support.live_server import wait_until

COUNTED = "One, two, three, four, five."
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


class Person(BaseModel):
    """What the scripted server says of Ada."""

    name: str
    age: int


class Pet(BaseModel):
    """What the random model is asked for."""

    name: str = Field(max_length=8)
    legs: int = Field(ge=0, le=8)


def say(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(servers: Servers) -> Iterator[OpenAI]:
    with OpenAI(base_url=servers.scripted, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def random(servers: Servers) -> Iterator[OpenAI]:
    with OpenAI(base_url=servers.random, api_key="unused", max_retries=0) as made:
        yield made


def running(client: OpenAI) -> int:
    """How many replies the server of `client` generates now."""
    reply = httpx2.get(str(client.base_url).removesuffix("v1/") + "ready")
    return int(reply.json()["running"])


def test_the_stream_helper_rebuilds_text_and_usage(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="test", messages=say("Count to five."))
    with client.chat.completions.stream(
        model="test", messages=say("Count to five."), stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == whole.choices[0].message.content == COUNTED
    assert final.usage == whole.usage


def test_tools_are_called_and_answered(client: OpenAI) -> None:
    messages = say("Weather in Paris and Rome?")
    message = client.chat.completions.create(model="test", messages=messages, tools=TOOLS).choices[0].message
    assert message.content is None
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
    history: Any = [*messages, message]
    history += [{"role": "tool", "tool_call_id": call.id, "content": "22 degrees"} for call in calls]
    reply = client.chat.completions.create(model="test", messages=history, tools=TOOLS)
    assert reply.choices[0].message.content == "It is 22 degrees there."


def test_the_stream_helper_rebuilds_calls(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="test", messages=say("Weather in Paris?"), tools=TOOLS
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [(event.name, event.arguments) for event in done] == [("get_weather", '{"city": "Paris"}')]
    assert final.choices[0].finish_reason == "tool_calls"
    assert len(final.choices[0].message.tool_calls or []) == 1


def test_parse_reads_messages_and_calls(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="test", messages=say("Who is Ada?"), response_format=Person
    )
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)
    tool = openai.pydantic_function_tool(Person, name="final_result")
    called = client.chat.completions.parse(
        model="test", messages=say("Give Ada to the tool."), tools=[tool], tool_choice="required"
    )
    calls = called.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [Person(name="Ada", age=36)]


def test_a_random_model_keeps_to_the_type_whole_and_streamed(random: OpenAI) -> None:
    asked: Any = {
        "model": "test",
        "messages": say("A pet, please."),
        "response_format": Pet,
        "seed": 1,
    }
    whole = random.chat.completions.parse(**asked).choices[0].message.parsed
    with random.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(whole, Pet)
    assert streamed == whole


def test_a_random_model_calls_what_it_must(random: OpenAI) -> None:
    for seed in range(3):
        called = random.chat.completions.parse(
            model="test",
            messages=say("A pet, please."),
            tools=[openai.pydantic_function_tool(Pet), openai.pydantic_function_tool(Pet, name="other")],
            tool_choice={"type": "function", "function": {"name": "Pet"}},
            seed=seed,
        )
        calls = called.choices[0].message.tool_calls or []
        assert isinstance(calls[0].function.parsed_arguments, Pet)


def test_text_completions_whole_and_streamed(client: OpenAI) -> None:
    whole = client.completions.create(model="test", prompt="Count to five.", max_tokens=100)
    stream = client.completions.create(model="test", prompt="Count to five.", max_tokens=100, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text == COUNTED


def test_responses_are_streamed_continued_and_parsed(client: OpenAI) -> None:
    with client.responses.stream(model="test", input="Count to five.") as stream:
        first = stream.until_done().get_final_response()
    assert first.output_text == COUNTED
    second = client.responses.parse(
        model="test", input="Who is Ada?", previous_response_id=first.id, text_format=Person
    )
    assert second.output_parsed == Person(name="Ada", age=36)


def test_responses_call_tools_and_take_results(client: OpenAI) -> None:
    tool: Any = {"type": "function", "name": "get_weather", "strict": True, "parameters": {"type": "object"}}
    first = client.responses.create(model="test", input="Weather in Paris?", tools=[tool])
    (call,) = (item for item in first.output if item.type == "function_call")
    second = client.responses.create(
        model="test",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}],
        tools=[tool],
    )
    assert second.output_text == "It is 22 degrees there."


async def test_the_asynchronous_client_does_the_same(servers: Servers) -> None:
    async with AsyncOpenAI(base_url=servers.scripted, api_key=KEY, max_retries=0) as client:
        whole = await client.chat.completions.create(model="test", messages=say("Count to five."))
        async with client.chat.completions.stream(model="test", messages=say("Count to five.")) as stream:
            final = await stream.get_final_completion()
        parsed = await client.responses.parse(model="test", input="Who is Ada?", text_format=Person)
    assert final.choices[0].message.content == whole.choices[0].message.content == COUNTED
    assert parsed.output_parsed == Person(name="Ada", age=36)


FAILURES: list[tuple[dict[str, Any], dict[str, Any], type[openai.APIStatusError], str]] = [
    ({"api_key": "wrong"}, {}, openai.AuthenticationError, "invalid_api_key"),
    ({}, {"model": "other"}, openai.NotFoundError, "model_not_found"),
    ({}, {"temperature": 9}, openai.BadRequestError, "decimal_above_max_value"),
    ({}, {"messages": say("hello " * 10000)}, openai.BadRequestError, "context_length_exceeded"),
    ({"api_key": LIMITED_KEY}, {}, openai.RateLimitError, "rate_limit_exceeded"),
]


@pytest.mark.parametrize(("options", "changed", "expected", "code"), FAILURES)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_sdks_own(
    client: OpenAI,
    options: dict[str, Any],
    changed: dict[str, Any],
    expected: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    asked: Any = {"model": "test", "messages": say("hello"), "stream": stream} | changed
    with pytest.raises(expected) as caught, client.with_options(**options) as other:
        other.chat.completions.create(**asked)
    assert caught.value.code == code
    assert caught.value.request_id
    assert caught.value.request_id.startswith("req_")


def test_a_full_queue_is_an_internal_server_error_that_says_when_to_retry(servers: Servers) -> None:
    with (
        pytest.raises(openai.InternalServerError) as caught,
        OpenAI(base_url=servers.busy, api_key="unused", max_retries=0) as busy,
    ):
        busy.chat.completions.create(model="test", messages=say("hello"))
    assert (caught.value.status_code, caught.value.code) == (503, "server_is_overloaded")
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_a_cancelled_task_frees_its_place(servers: Servers, client: OpenAI) -> None:
    async with AsyncOpenAI(base_url=servers.scripted, api_key=KEY, max_retries=0) as asynchronous:
        asked = asynchronous.chat.completions.create(model="test", messages=say("Talk for ever."))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked, 0.5)
    await asyncio.to_thread(wait_until, lambda: running(client) == 0, 1.0)


def test_leaving_a_response_frees_its_place(client: OpenAI) -> None:
    with client.responses.create(model="test", input="Talk for ever.", stream=True) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                break
        assert running(client) == 1
    wait_until(lambda: running(client) == 0, 1.0)
