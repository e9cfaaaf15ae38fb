"""Refusals in /v1/responses: parts and events of either style, what is taken back, and refusals that are kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from support.fake_server import TOKENIZER, FakeServer
from support.guarded_server import WordDetector, guarded_server
from support.refusals import CUT, EARLY, QUESTION, SHOWN, policy_in_style, words
from support.response_events import MESSAGE_EVENTS
from support.responses import events_of, respond, text_of, types_of
from support.tool_templates import HERMES

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "buy", "parameters": {"type": "object"}, "strict": False}
SIGNAL = {"stage": "input", "category": "weapons"}
JSON_FORM = {"format": {"type": "json_object"}}


async def part_of(server: FakeServer, **body: Any) -> dict[str, Any]:
    """The one part of the one message of a response."""
    response = (await respond(server, **body)).json()
    Response.model_validate(response)
    ((part,),) = (item["content"] for item in response["output"])
    return dict(part)


async def events(server: FakeServer, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, which the SDK knows."""
    found = events_of((await respond(server, stream=True, **body)).text)
    for event in found:
        SDK_EVENT.validate_python(event)
    return found


async def ended(server: FakeServer, response_id: str) -> dict[str, Any]:
    """A background response when it has ended."""
    while True:
        response: dict[str, Any] = (await server.client.get(f"/v1/responses/{response_id}")).json()
        if response["status"] not in ("queued", "in_progress"):
            return response
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("style", ["content", "both"])
async def test_a_refusal_is_one_part_of_text(style: str, tmp_path: Path) -> None:
    """In the style `both` too: readers show, and send back, the parts of a message one after the other."""
    async with guarded_server(policy=policy_in_style(tmp_path, style)) as server:
        part = await part_of(server, input=QUESTION)
        types = types_of(await events(server, input=QUESTION))
    assert part == {"type": "output_text", "annotations": [], "logprobs": [], "text": words()}
    assert types == MESSAGE_EVENTS


async def test_in_the_style_field_a_refusal_is_a_part_of_its_own_type(tmp_path: Path) -> None:
    async with guarded_server(policy=policy_in_style(tmp_path, "field")) as server:
        assert await part_of(server, input=QUESTION) == {"type": "refusal", "refusal": words()}
        found = await events(server, input=QUESTION)
    assert types_of(found)[3:7] == [
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
    ]
    added, delta, done, part_done = found[3:7]
    place = {"item_id": found[2]["item"]["id"], "output_index": 0, "content_index": 0}
    assert added == {"type": "response.content_part.added", "sequence_number": 3} | place | {
        "part": {"type": "refusal", "refusal": ""}
    }
    assert delta == {"type": "response.refusal.delta", "sequence_number": 4} | place | {"delta": words()}
    assert done == {"type": "response.refusal.done", "sequence_number": 5} | place | {"refusal": words()}
    assert part_done["part"] == {"type": "refusal", "refusal": words()}


async def test_a_reply_that_is_held_to_a_form_is_refused_in_a_part_of_its_own_type() -> None:
    async with guarded_server(f'{{"a": "{EARLY}"}}') as server:
        for question in ("hello", QUESTION):
            part = await part_of(server, input=question, text=JSON_FORM)
            assert part == {"type": "refusal", "refusal": words()}


async def test_a_refused_question_has_a_complete_response_and_a_refused_answer_an_incomplete_one() -> None:
    async with guarded_server(EARLY) as server:
        refused = (await respond(server, input=QUESTION)).json()
        cut = (await respond(server)).json()
    assert (refused["status"], refused["incomplete_details"]) == ("completed", None)
    assert (refused["output"][0]["status"], refused["output"][0]["x_refusal"]) == ("completed", SIGNAL)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert (cut["output"][0]["status"], cut["completed_at"]) == ("incomplete", None)
    assert refused["usage"]["output_tokens"] == 0


async def test_items_that_are_taken_back_never_end_and_are_not_in_the_response() -> None:
    async with guarded_server(CUT) as server:
        found = await events(server)
    added = [event for event in found if event["type"] == "response.output_item.added"]
    done = [event for event in found if event["type"] == "response.output_item.done"]
    withdrawn, refusal = added
    assert "x_moderation" not in withdrawn
    assert (refusal["x_moderation"], refusal["output_index"]) == ({"retract": True}, 1)
    assert [event["item"]["id"] for event in done] == [refusal["item"]["id"]]
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"] == [done[0]["item"]]
    assert not any(event.get("text") == SHOWN[:40] for event in found)


async def test_a_call_that_is_taken_back_is_never_complete() -> None:
    arguments = CUT.replace('"', "'")
    said = f'<tool_call>\n{{"name": "buy", "arguments": {{"what": "{arguments}"}}}}\n</tool_call>'
    async with guarded_server(said, template=HERMES, context_length=2048) as server:
        found = await events(server, tools=[TOOL])
        whole = (await respond(server, tools=[TOOL])).json()
    assert "function_call_arguments.delta" in types_of(found)
    assert "function_call_arguments.done" not in types_of(found)
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["message"]
    assert [item["type"] for item in whole["output"]] == ["message"]


@pytest.mark.parametrize("style", ["content", "field"])
async def test_a_background_response_is_refused_like_any_other(style: str, tmp_path: Path) -> None:
    async with guarded_server(CUT, policy=policy_in_style(tmp_path, style)) as server:
        for question, status in ((QUESTION, "completed"), ("hello", "incomplete")):
            started = (await respond(server, input=question, background=True)).json()
            response = await ended(server, started["id"])
            assert response["status"] == status
            ((part,),) = (item["content"] for item in response["output"])
            assert words() in part.values()


async def test_the_events_of_a_refused_background_response_can_be_read_again() -> None:
    async with guarded_server(CUT) as server:
        live = await events(server, background=True)
        path = f"/v1/responses/{live[0]['response']['id']}?stream=true"
        assert events_of((await server.client.get(path)).text) == live


@pytest.mark.parametrize("store", [True, None])
@pytest.mark.parametrize("style", ["content", "field"])
async def test_a_kept_refusal_is_read_as_it_was_sent_and_known_when_its_conversation_goes_on(
    style: str, store: bool | None, tmp_path: Path
) -> None:
    detector = WordDetector("words")
    policy = policy_in_style(tmp_path, style)
    async with guarded_server("Gladly.", policy=policy, detector=detector) as server:
        refused = (await respond(server, input=QUESTION, store=store)).json()
        assert (await server.client.get(f"/v1/responses/{refused['id']}")).json() == refused
        detector.seen.clear()
        following = await respond(server, input="And the weather?", previous_response_id=refused["id"])
        assert text_of(following.json()) == "Gladly."
        assert not any(QUESTION in sample.text for sample in detector.seen)
        prompt = str(TOKENIZER.decode(server.engine.requests[-1].prompt_ids))
    assert "(This message was declined.)" in prompt
    assert words() in prompt
    assert QUESTION not in prompt


@pytest.mark.parametrize("style", ["content", "field"])
async def test_output_that_a_client_sends_back_as_input_is_known(style: str, tmp_path: Path) -> None:
    async with guarded_server("Gladly.", policy=policy_in_style(tmp_path, style)) as server:
        refused = (await respond(server, input=QUESTION)).json()
        question = {"role": "user", "content": QUESTION}
        following: list[Any] = [question, *refused["output"], {"role": "user", "content": "hello"}]
        reply = await respond(server, input=following)
        assert text_of(reply.json()) == "Gladly."
        following[1] = {"type": "item_reference", "id": refused["output"][0]["id"]}
        assert text_of((await respond(server, input=following)).json()) == "Gladly."


class Shopping(BaseModel):
    what: str


async def test_the_sdk_streams_and_parses_refusals() -> None:
    async with guarded_server(f'{{"what": "{CUT}"}}') as server:
        client = AsyncOpenAI(
            base_url="http://127.0.0.1:8000/v1", api_key="unused", max_retries=0, http_client=server.client
        )
        parsed = await client.responses.parse(model="test", input=QUESTION, text_format=Shopping)
        assert parsed.output_parsed is None
        async with client.responses.stream(model="test", input=QUESTION, text_format=Shopping) as stream:
            said = [event.delta async for event in stream if event.type == "response.refusal.delta"]
            assert (await stream.get_final_response()).output_parsed is None
        async with client.responses.stream(model="test", input="hello", text_format=Shopping) as stream:
            ends = [event.response async for event in stream if event.type == "response.incomplete"]
    assert said == [words()]
    assert [end.incomplete_details and end.incomplete_details.reason for end in ends] == ["content_filter"]
