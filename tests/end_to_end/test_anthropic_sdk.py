"""The official Anthropic SDK against the real server: what its users will meet."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam
from pydantic import BaseModel

from support.fake_server import fake_server
from support.live_server import LiveServer
from support.tool_templates import HERMES

MESSAGES: list[MessageParam] = [{"role": "user", "content": "hello world"}]
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'


@pytest.fixture
def client(server: LiveServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0) as made:
        yield made


@asynccontextmanager
async def scripted(*replies: str, **options: Any) -> AsyncIterator[AsyncAnthropic]:
    """An SDK in front of a server whose model says what is scripted."""
    async with fake_server(*replies, **options) as server:
        yield AsyncAnthropic(
            base_url="http://127.0.0.1:8000", api_key="unused", http_client=server.client, max_retries=0
        )


def create(client: Anthropic, **options: Any) -> Message:
    asked: Any = {"model": "test", "messages": MESSAGES, "max_tokens": 16, "system": "Be kind."} | options
    return Message.model_validate(client.messages.create(**asked))


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_created(client: Anthropic) -> None:
    message = create(client)
    assert message.role == "assistant"
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 16


def test_the_stream_helper_rebuilds_the_whole_message(client: Anthropic) -> None:
    asked: Any = {"model": "test", "messages": MESSAGES, "max_tokens": 24, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(whole) == text_of(final)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_tokens_are_counted_as_they_are_used(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="test", messages=MESSAGES, system="Be kind.")
    usage = create(client).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_repeated_prompt_is_read_from_the_cache(client: Anthropic) -> None:
    long: list[MessageParam] = [{"role": "user", "content": "the quick brown fox " * 12}]
    create(client, messages=long)
    usage = create(client, messages=long).usage
    assert (usage.cache_read_input_tokens or 0) > usage.input_tokens


async def test_a_stop_sequence_is_named() -> None:
    async with scripted("one two three") as client:
        message = await client.messages.create(
            model="test", messages=MESSAGES, max_tokens=64, stop_sequences=["zzz", " three"]
        )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")
    assert text_of(message) == "one two"


async def test_a_tool_is_called_and_its_result_given_back() -> None:
    async with scripted(CALL, "It is sunny.", template=HERMES, context_length=2048) as client:
        first = await client.messages.create(model="test", messages=MESSAGES, max_tokens=256, tools=[WEATHER])
        call = first.content[-1]
        assert call.type == "tool_use"
        assert (call.name, call.input) == ("weather", {"city": "Bern"})
        assert first.stop_reason == "tool_use"
        result: MessageParam = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}],
        }
        second = await client.messages.create(
            model="test", messages=[*MESSAGES, first.to_param(), result], max_tokens=64, tools=[WEATHER]
        )
    assert text_of(second) == "It is sunny."


async def test_a_streamed_call_is_rebuilt_by_the_helper() -> None:
    async with (
        scripted(CALL, template=HERMES, context_length=2048) as client,
        client.messages.stream(model="test", messages=MESSAGES, max_tokens=256, tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_message()
    text, call = final.content
    assert text.type == "text"
    assert call.type == "tool_use"
    assert call.input == {"city": "Bern"}
    assert final.stop_reason == "tool_use"


async def test_the_tool_runner_goes_round_until_the_model_has_said_all() -> None:
    asked: list[str] = []

    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        asked.append(city)
        return "sunny"

    async with scripted(CALL, "It is sunny.", template=HERMES, context_length=2048) as client:
        runner = client.beta.messages.tool_runner(
            model="test", messages=[{"role": "user", "content": "hello"}], max_tokens=256, tools=[weather]
        )
        final = await runner.until_done()
    assert asked == ["Bern"]
    assert final.content[0].type == "text"
    assert final.content[0].text == "It is sunny."


class Weather(BaseModel):
    """What the model is asked to write."""

    city: str
    degrees: int


async def test_structured_output_is_parsed() -> None:
    async with scripted('{"city": "Bern", "degrees": 9}') as client:
        message = await client.messages.parse(
            model="test", messages=MESSAGES, max_tokens=64, output_format=Weather
        )
    assert message.parsed_output == Weather(city="Bern", degrees=9)


def test_errors_arrive_as_the_sdks_own_exceptions(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        create(client, model="no-such-model")
    assert missing.value.type == "not_found_error"
    assert missing.value.error_code == "model_not_found"
    assert (missing.value.request_id or "").startswith("req_")
    with pytest.raises(anthropic.BadRequestError) as bad:
        create(client, messages=[])
    assert bad.value.type == "invalid_request_error"
    assert bad.value.error_code == "empty_array"
    with pytest.raises(anthropic.BadRequestError) as refused:
        create(client, tools=[WEATHER])
    assert "tools" in (refused.value.api_message or "")


async def test_a_stream_that_breaks_raises() -> None:
    async with fake_server("a " * 40, token_delay_s=0.01) as server:
        client = AsyncAnthropic(
            base_url="http://127.0.0.1:8000", api_key="unused", http_client=server.client, max_retries=0
        )
        server.services.lifecycle.aborted.set()
        with pytest.raises(anthropic.APIStatusError) as broken:
            async with client.messages.stream(model="test", messages=MESSAGES, max_tokens=64) as stream:
                await stream.get_final_message()
    assert broken.value.type == "overloaded_error"
