"""Tool calls through the helpers of the official SDK: streams, parsed arguments, whole rounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from support.fake_server import fake_server
from support.tool_templates import HERMES

SCRIPT = (
    'Let me see.\n<tool_call>\n{"name": "GetWeather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>\n'
    '<tool_call>\n{"name": "GetWeather", "arguments": {"city": "Rome", "days": 1}}\n</tool_call>'
)
QUESTION: Any = [{"role": "user", "content": "Weather?"}]


class GetWeather(BaseModel):
    """The weather of the coming days."""

    city: str = Field(max_length=8)
    days: int = Field(ge=1, le=9)


TOOLS = [openai.pydantic_function_tool(GetWeather)]


@asynccontextmanager
async def sdk(*replies: str) -> AsyncIterator[AsyncOpenAI]:
    async with fake_server(*replies, template=HERMES, context_length=2048) as server:
        yield AsyncOpenAI(
            base_url="http://127.0.0.1:8000/v1", api_key="unused", max_retries=0, http_client=server.client
        )


async def test_the_stream_helper_sees_content_and_both_calls() -> None:
    done = []
    pieces = 0
    async with (
        sdk(SCRIPT) as client,
        client.chat.completions.stream(model="test", messages=QUESTION, tools=TOOLS) as stream,
    ):
        async for event in stream:
            if event.type == "tool_calls.function.arguments.delta":
                pieces += 1
            elif event.type == "tool_calls.function.arguments.done":
                done.append(event.parsed_arguments)
        final = await stream.get_final_completion()
    assert done == [GetWeather(city="Oslo", days=3), GetWeather(city="Rome", days=1)]
    assert pieces > 10
    assert final.choices[0].message.content == "Let me see."
    assert final.choices[0].finish_reason == "tool_calls"
    assert len({call.id for call in final.choices[0].message.tool_calls or []}) == 2


async def test_parse_gives_arguments_of_their_type() -> None:
    async with sdk(SCRIPT) as client:
        completion = await client.chat.completions.parse(
            model="test", messages=QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
        )
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == GetWeather(city="Oslo", days=3)


async def test_a_whole_round_of_calls_and_results() -> None:
    messages: list[Any] = [*QUESTION]
    tools: Any = TOOLS
    async with sdk(SCRIPT, "Snow and sun.") as client:
        first = await client.chat.completions.create(model="test", messages=messages, tools=tools)
        reply = first.choices[0].message
        messages.append(reply)
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "snow"} for call in reply.tool_calls or []
        ]
        second = await client.chat.completions.create(model="test", messages=messages, tools=tools)
    assert (first.choices[0].finish_reason, second.choices[0].finish_reason) == ("tool_calls", "stop")
    assert second.choices[0].message.content == "Snow and sun."
    assert second.choices[0].message.tool_calls is None


async def test_a_call_cut_by_length_is_an_error_in_the_helpers() -> None:
    async with sdk(SCRIPT) as client:
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(model="test", messages=QUESTION, tools=TOOLS, max_tokens=60)
