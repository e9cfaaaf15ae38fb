"""litellm: completion and its asynchronous twin, streams, text_completion, responses, tools, errors."""

import json

import litellm
import pytest
from pydantic import BaseModel, Field

from conftest import Server

COUNTED = "One, two, three, four, five."
REFUSAL = "I can't help with that, but I can tell you what it is made of."
BEGINNING = "All is well, and it is a fine day for a "
"""What is shown of the answer before it is refused."""
TOOLS = [
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


class Pet(BaseModel):
    """What the random model is asked for."""

    name: str = Field(max_length=8)
    legs: int = Field(ge=0, le=8)


@pytest.fixture
def there(server: Server) -> dict[str, object]:
    return {"model": "openai/test", "api_base": server.url, "api_key": server.key, "max_retries": 0}


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_whole_reply_with_its_usage(there: dict[str, object]) -> None:
    reply = litellm.completion(messages=say("Count to five."), **there)
    assert reply.choices[0].message.content == COUNTED
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert reply.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_equals_the_whole(there: dict[str, object]) -> None:
    whole = litellm.completion(messages=say("Count to five."), **there)
    chunks = list(
        litellm.completion(
            messages=say("Count to five."), stream=True, stream_options={"include_usage": True}, **there
        )
    )
    assert len(chunks) > 5
    built = litellm.stream_chunk_builder(chunks, messages=say("Count to five."))
    assert built.choices[0].message.content == COUNTED
    assert built.choices[0].finish_reason == "stop"
    assert built.usage.completion_tokens == whole.usage.completion_tokens
    assert built.usage.prompt_tokens == whole.usage.prompt_tokens


async def test_asynchronous_replies_and_streams(there: dict[str, object]) -> None:
    whole = await litellm.acompletion(messages=say("Count to five."), **there)
    stream = await litellm.acompletion(messages=say("Count to five."), stream=True, **there)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content == COUNTED


def test_tools_are_called_and_answered(there: dict[str, object]) -> None:
    messages = say("Weather in Paris and Rome?")
    message = litellm.completion(messages=messages, tools=TOOLS, **there).choices[0].message
    cities = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
    assert cities == ["Paris", "Rome"]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"} for call in message.tool_calls
    ]
    reply = litellm.completion(messages=[*messages, message.model_dump(), *results], tools=TOOLS, **there)
    assert reply.choices[0].message.content == "It is 22 degrees there."


def test_streamed_calls_are_rebuilt(there: dict[str, object]) -> None:
    chunks = list(litellm.completion(messages=say("Weather in Paris?"), tools=TOOLS, stream=True, **there))
    built = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].finish_reason == "tool_calls"
    (call,) = built.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_a_random_model_keeps_to_a_pydantic_model(server: Server) -> None:
    reply = litellm.completion(
        model="openai/test",
        api_base=server.random_url,
        api_key="unused",
        messages=say("A pet, please."),
        response_format=Pet,
        seed=1,
    )
    Pet.model_validate_json(reply.choices[0].message.content)


def test_text_completions(there: dict[str, object]) -> None:
    model = {**there, "model": "text-completion-openai/test"}
    reply = litellm.text_completion(prompt="Count to five.", max_tokens=100, **model)
    assert reply.choices[0].text == COUNTED
    streamed = litellm.text_completion(prompt="Count to five.", max_tokens=100, stream=True, **model)
    assert "".join(chunk.choices[0].text or "" for chunk in streamed) == COUNTED


def test_responses(there: dict[str, object]) -> None:
    first = litellm.responses(input="Count to five.", **there)
    assert first.output_text == COUNTED
    second = litellm.responses(input="Who is Ada?", previous_response_id=first.id, **there)
    assert json.loads(second.output_text)["name"] == "Ada"
    events = list(litellm.responses(input="Count to five.", stream=True, **there))
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == COUNTED


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"api_key": "wrong"}, litellm.AuthenticationError),
        ({"model": "openai/other"}, litellm.NotFoundError),
        ({"temperature": 9}, litellm.BadRequestError),
        ({"messages": say("hello " * 10000)}, litellm.ContextWindowExceededError),
        ({"api_key": Server.limited_key}, litellm.RateLimitError),
        ({"api_base": Server.busy_url}, litellm.ServiceUnavailableError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_litellms_own(
    there: dict[str, object], changed: dict[str, object], expected: type[Exception], stream: bool
) -> None:
    with pytest.raises(expected):
        litellm.completion(**({"messages": say("hello")} | there | changed), stream=stream)


def test_leaving_a_stream_frees_its_place(server: Server, there: dict[str, object]) -> None:
    stream = litellm.completion(messages=say("Talk for ever."), stream=True, **there)
    next(iter(stream))
    assert server.running() == 1
    stream.completion_stream.close()
    server.wait_until_idle()


async def test_a_cancelled_task_frees_its_place(server: Server, there: dict[str, object]) -> None:
    import asyncio

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(litellm.acompletion(messages=say("Talk for ever."), **there), 0.5)
    server.wait_until_idle()


async def test_a_harmless_text_is_not_flagged(server: Server) -> None:
    there = {"input": "Good morning!", "api_base": server.url, "api_key": server.key}
    whole = litellm.moderation(**there)
    awaited = await litellm.amoderation(model="omni-moderation-latest", **there)
    assert [one.flagged for one in (*whole.results, *awaited.results)] == [False, False]
    assert whole.results[0].category_scores == awaited.results[0].category_scores


def test_a_refusal_is_shown_and_the_conversation_goes_on(there: dict[str, object]) -> None:
    question = say("Where can I buy a zorb?")
    whole = litellm.completion(messages=question, **there).choices[0]
    assert (whole.message.content, whole.finish_reason) == (REFUSAL, "stop")
    stream = litellm.completion(messages=question, stream=True, **there)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == REFUSAL
    history = [*question, whole.message.model_dump(), *say("Count to five.")]
    assert litellm.completion(messages=history, **there).choices[0].message.content == COUNTED
    response = litellm.responses(input="Where can I buy a zorb?", **there)
    assert response.output[0].content[0].text == REFUSAL


def test_a_cut_answer_shows_nothing_that_was_refused(there: dict[str, object]) -> None:
    question = say("Tell me about the day.")
    whole = litellm.completion(messages=question, **there).choices[0]
    chunks = list(litellm.completion(messages=question, stream=True, **there))
    assert (whole.message.content, whole.finish_reason) == (REFUSAL, "content_filter")
    built = litellm.stream_chunk_builder(chunks, messages=question).choices[0]
    assert (built.message.content, built.finish_reason) == (BEGINNING, "content_filter")
