"""pydantic-ai: agents with text, typed output and tools, whole and streamed, by chat completions and by responses."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from conftest import Server

COUNTED = "One, two, three, four, five."
REFUSAL = "I can't help with that, but I can tell you what it is made of."
BEGINNING = "All is well, and it is a fine day for a "
"""What is shown of the answer before it is refused."""


class Person(BaseModel):
    """What the scripted server says of Ada."""

    name: str
    age: int


class Pet(BaseModel):
    """What the random model is asked for."""

    name: str = Field(max_length=8)
    legs: int = Field(ge=0, le=8)


Make = Callable[..., Model]


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel])
def make(request: pytest.FixtureRequest, server: Server) -> Make:
    def model(name: str = "test", *, url: str = server.url, key: str = server.key) -> Model:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
        return request.param(name, provider=OpenAIProvider(openai_client=client))

    return model


async def test_a_whole_reply_with_its_usage(make: Make) -> None:
    result = await Agent(make(), instructions="Be brief.").run("Count to five.")
    assert result.output == COUNTED
    usage = result.usage
    assert usage.requests == 1
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


async def test_a_stream_equals_the_whole(make: Make) -> None:
    async with Agent(make()).run_stream("Count to five.") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == COUNTED
    assert len(pieces) > 5


async def test_a_conversation_goes_on(make: Make) -> None:
    agent = Agent(make())
    first = await agent.run("Count to five.")
    second = await agent.run("Who is Ada?", message_history=first.all_messages())
    assert '"Ada"' in second.output


@pytest.mark.parametrize("prompt", ["Weather in Paris?", "Weather in Paris and Rome?"])
@pytest.mark.parametrize("streams", [False, True])
async def test_tools_are_called_and_answered(make: Make, prompt: str, streams: bool) -> None:
    agent = Agent(make())
    cities = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Say the weather in a city."""
        cities.append(city)
        return "22 degrees"

    if streams:
        async with agent.run_stream(prompt) as result:
            output = await result.get_output()
    else:
        output = (await agent.run(prompt)).output
    assert output == "It is 22 degrees there."
    assert sorted(cities) == [city for city in ("Paris", "Rome") if city in prompt]


@pytest.mark.parametrize(
    ("output", "prompt"),
    [
        (ToolOutput(Person), "Give Ada to the tool."),
        (NativeOutput(Person), "Who is Ada?"),
    ],
)
async def test_typed_output_by_a_tool_and_by_a_schema(make: Make, output: object, prompt: str) -> None:
    agent = Agent(make(), output_type=output)
    assert (await agent.run(prompt)).output == Person(name="Ada", age=36)
    async with agent.run_stream(prompt) as result:
        seen = [partial async for partial in result.stream_output(debounce_by=None)]
    assert seen[-1] == Person(name="Ada", age=36)


@pytest.mark.parametrize("form", [ToolOutput, NativeOutput])
async def test_a_random_model_keeps_to_the_type(
    make: Make, server: Server, form: Callable[..., object]
) -> None:
    agent = Agent(make(url=server.random_url), output_type=form(Pet), retries=0)
    assert isinstance((await agent.run("A pet, please.")).output, Pet)


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"key": "wrong"}, 401, "invalid_api_key"),
        ({"name": "other"}, 404, "model_not_found"),
        ({"key": Server.limited_key}, 429, "rate_limit_exceeded"),
        ({"url": Server.busy_url}, 503, "server_is_overloaded"),
    ],
)
async def test_errors_carry_status_and_code(
    make: Make, changed: dict[str, str], status: int, code: str
) -> None:
    with pytest.raises(ModelHTTPError) as caught:
        await Agent(make(**changed)).run("hello")
    assert caught.value.status_code == status
    assert caught.value.body["code"] == code


async def test_a_bad_setting_is_a_400(make: Make) -> None:
    with pytest.raises(ModelHTTPError) as caught:
        await Agent(make(), model_settings={"temperature": 9}).run("hello")
    assert caught.value.status_code == 400


async def test_leaving_a_stream_frees_its_place(make: Make, server: Server) -> None:
    async with Agent(make()).run_stream("Talk for ever.") as result:
        async for _ in result.stream_text(delta=True, debounce_by=None):
            assert server.running() == 1
            break
        await result.cancel()
    server.wait_until_idle()


async def test_a_refusal_is_shown_and_the_conversation_goes_on(make: Make) -> None:
    agent = Agent(make())
    first = await agent.run("Where can I buy a zorb?")
    assert first.output == REFUSAL
    async with agent.run_stream("Where can I buy a zorb?") as result:
        assert "".join([piece async for piece in result.stream_text(delta=True)]) == REFUSAL
    second = await agent.run("Count to five.", message_history=first.all_messages())
    assert second.output == COUNTED


async def test_a_cut_answer_shows_nothing_that_was_refused(make: Make) -> None:
    agent = Agent(make())
    first = await agent.run("Tell me about the day.")
    async with agent.run_stream("Tell me about the day.") as result:
        text = "".join([piece async for piece in result.stream_text(delta=True)])
    assert first.output == REFUSAL
    assert text in (BEGINNING, BEGINNING + REFUSAL)
    for run in (first, result):
        assert run.all_messages()[-1].finish_reason == "content_filter"
