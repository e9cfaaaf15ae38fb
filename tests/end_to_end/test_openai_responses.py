"""The official OpenAI SDK and /v1/responses on real servers: whole, streamed, continued, kept, in the background."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseOutputMessage
from pydantic import BaseModel

from support.fake_model import write_fake_model, write_script
from support.live_server import LiveServer, live_server, wait_until
from support.tiny_checkpoints import write_tiny_checkpoint
from support.tool_templates import HERMES


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with connect(server) as made:
        yield made


def connect(server: LiveServer) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def create(client: OpenAI, **options: Any) -> Response:
    """Create a response; the model says anything, so a seed has it say the same each time."""
    content: Any = {"model": "test", "input": "hello world", "max_output_tokens": 24} | options
    content["extra_body"] = {"seed": 11} | content.get("extra_body", {})
    return Response.model_validate(client.responses.create(**content))


def test_streamed_and_whole_responses_are_equal_for_every_length(client: OpenAI) -> None:
    for max_output_tokens in range(16, 40, 3):
        options: Any = {
            "model": "test",
            "input": "hello world",
            "max_output_tokens": max_output_tokens,
            "extra_body": {"seed": 11},
        }
        whole = create(client, **options)
        text, last = "", None
        for event in client.responses.create(**options, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
        assert last is not None
        assert last.type in ("response.completed", "response.incomplete")
        assert text == last.response.output_text == whole.output_text
        assert last.response.status == whole.status
        assert last.response.incomplete_details == whole.incomplete_details
        assert whole.usage is not None
        assert last.response.usage is not None
        assert last.response.usage.output_tokens == whole.usage.output_tokens


class Verdict(BaseModel):
    mood: Literal["good", "bad"]
    is_sure: bool


def test_the_stream_helper_and_parse_give_typed_answers(client: OpenAI) -> None:
    parsed = client.responses.parse(model="test", input="hello", text_format=Verdict)
    assert isinstance(parsed.output_parsed, Verdict)
    with client.responses.stream(model="test", input="hello", text_format=Verdict) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Verdict)
    assert seen[0] == "response.created"
    assert seen[-1] == "response.completed"


def test_a_kept_response_is_continued_read_listed_counted_and_deleted(client: OpenAI) -> None:
    first = create(client, instructions="Be kind.", metadata={"topic": "greeting"})
    second = create(client, previous_response_id=first.id, input=[{"role": "user", "content": "again"}])
    assert client.responses.retrieve(first.id) == first
    assert first.metadata == {"topic": "greeting"}
    assert second.usage is not None
    counted = client.responses.input_tokens.count(model="test", input="again", previous_response_id=first.id)
    assert counted.input_tokens == second.usage.input_tokens
    [item] = list(client.responses.input_items.list(second.id))
    assert item.type == "message"
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    create(client, previous_response_id=second.id)


def test_input_items_are_paged_by_the_sdk(client: OpenAI) -> None:
    texts = [f"number {index}" for index in range(7)]
    response = create(client, input=[{"role": "user", "content": text} for text in texts])
    listed = client.responses.input_items.list(response.id, limit=3, order="asc")
    assert [item.content[0].text for item in listed if item.type == "message"] == texts  # type: ignore[union-attr]


def test_output_goes_back_as_input_as_it_came(client: OpenAI) -> None:
    first = create(client)
    history: list[Any] = [{"role": "user", "content": "hello world"}, *first.output]
    again = create(client, input=[*history, {"role": "user", "content": "go on"}], extra_body={"seed": 1})
    continued = create(client, previous_response_id=first.id, input="go on", extra_body={"seed": 1})
    assert again.output_text == continued.output_text


def test_logprobs_arrive_typed(client: OpenAI) -> None:
    response = create(client, include=["message.output_text.logprobs"], top_logprobs=2)
    message = response.output[0]
    assert isinstance(message, ResponseOutputMessage)
    part = message.content[0]
    assert part.type == "output_text"
    assert part.logprobs
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)


def test_errors_arrive_as_the_sdks_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as missing:
        create(client, previous_response_id="resp_none")
    assert (missing.value.code, missing.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    with pytest.raises(openai.BadRequestError) as image:
        create(client, input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}])
    assert image.value.param == "input[0].content[0].type"


async def test_the_async_client_runs_responses_side_by_side(server: LiveServer) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as client:

        async def streamed(seed: int) -> str:
            options: Any = {"model": "test", "input": "hello", "extra_body": {"seed": seed}}
            async with client.responses.stream(**options, max_output_tokens=24) as stream:
                return "".join(
                    [event.delta async for event in stream if event.type == "response.output_text.delta"]
                )

        async def whole(seed: int) -> str:
            response = await client.responses.create(
                model="test", input="hello", max_output_tokens=24, extra_body={"seed": seed}
            )
            return response.output_text

        seeds = range(4)
        assert await asyncio.gather(*map(streamed, seeds)) == await asyncio.gather(*map(whole, seeds))


def test_function_calls_arrive_typed_and_their_results_go_back(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tools", template=HERMES)
    tool: Any = {
        "type": "function",
        "name": "set_mood",
        "parameters": {
            "type": "object",
            "properties": {"mood": {"enum": ["good", "bad"]}},
            "required": ["mood"],
            "additionalProperties": False,
        },
        "strict": True,
    }
    with live_server(checkpoint, "--dtype", "float32") as server, connect(server) as client:
        options: Any = {"model": "test", "input": "hello", "tools": [tool], "tool_choice": "required"}
        options["parallel_tool_calls"] = False
        response = client.responses.create(**options)
        [call] = response.output
        assert call.type == "function_call"
        assert call.arguments in ('{"mood": "good"}', '{"mood": "bad"}', '{"mood":"good"}', '{"mood":"bad"}')
        with client.responses.stream(**options) as stream:
            arguments = [
                event.arguments for event in stream if event.type == "response.function_call_arguments.done"
            ]
            final = stream.get_final_response()
        assert [item.arguments for item in final.output if item.type == "function_call"] == arguments
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
        after = client.responses.create(
            model="test",
            previous_response_id=response.id,
            input=[result],
            tools=[tool],
            max_output_tokens=16,
        )
        assert after.status in ("completed", "incomplete")


@contextmanager
def slow_server(folder: Path) -> Iterator[tuple[LiveServer, OpenAI]]:
    """Start a server that takes ten seconds for a response, and stores in `folder`; and a client of it."""
    model = write_fake_model(folder, context_length=2048)
    script = write_script(folder / "script.json", "the quick brown fox " * 60, token_delay_ms=10)
    flags = ["--engine", "fake", "--fake-script", str(script), "--drain-timeout-s", "0.2"]
    env = {"TURNWISE_DATABASE_URL": f"sqlite:///{folder / 'server.db'}"}
    with live_server(model, *flags, env=env) as server, connect(server) as client:
        yield server, client


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, OpenAI]]:
    with slow_server(tmp_path_factory.mktemp("slow")) as running:
        yield running


def test_a_background_response_is_polled_and_cancelled_within_a_second(
    slow: tuple[LiveServer, OpenAI],
) -> None:
    server, client = slow
    queued = client.responses.create(model="test", input="hello", background=True)
    assert queued.status == "queued"
    wait_until(lambda: bool(client.responses.retrieve(queued.id).output_text), 5)
    assert client.responses.retrieve(queued.id).status == "in_progress"
    began = time.monotonic()
    cancelled = client.responses.cancel(queued.id)
    assert time.monotonic() - began < 1
    assert cancelled.status == "cancelled"
    assert server.ready()[1]["running"] == 0
    assert client.responses.retrieve(queued.id).status == "cancelled"


def test_a_background_stream_is_left_and_taken_up_again(slow: tuple[LiveServer, OpenAI]) -> None:
    _, client = slow
    events = []
    with client.responses.create(
        model="test", input="hello", max_output_tokens=60, background=True, stream=True
    ) as stream:
        for event in stream:
            events.append(event)
            if len(events) == 12:
                break
    created = events[0]
    assert created.type == "response.created"
    last = events[-1].sequence_number
    with client.responses.retrieve(created.response.id, stream=True, starting_after=last) as rest:
        events += list(rest)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1]
    assert final.type == "response.incomplete"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.response.output_text == client.responses.retrieve(created.response.id).output_text


def test_no_response_stays_unfinished_when_its_server_is_killed_or_told_to_stop(tmp_path: Path) -> None:
    """One life after the other on the same database: a kill, then a stop whose drain is too short, then a look."""

    def begin(client: OpenAI) -> Response:
        response = client.responses.create(model="test", input="b", store=True, background=True)
        wait_until(lambda: client.responses.retrieve(response.id).status == "in_progress", 5)
        return response

    with slow_server(tmp_path) as (server, client):
        done = client.responses.create(model="test", input="a", store=True, max_output_tokens=16)
        killed = begin(client)
        server.process.kill()
        server.process.wait(10)
    with slow_server(tmp_path) as (server, client):
        failed = client.responses.retrieve(killed.id)
        assert failed.error is not None
        assert (failed.status, failed.error.code) == ("failed", "server_error")
        assert client.responses.retrieve(done.id) == done
        create(client, previous_response_id=done.id)
        stopped = begin(client)
        server.process.terminate()
        assert server.process.wait(20) == 0
    with slow_server(tmp_path) as (server, client):
        failed = client.responses.retrieve(stopped.id)
        assert failed.error is not None
        assert (failed.status, failed.error.message) == ("failed", "The server is shutting down.")
