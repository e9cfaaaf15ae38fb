"""Refusals in /v1/messages: the reason `refusal`, where the words stand, and what is taken back."""

from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from support.fake_server import TOKENIZER
from support.guarded_server import WordDetector, guarded_server
from support.refusals import CUT, EARLY, MESSAGES, QUESTION, SHOWN, data_of, policy_in_style, words
from support.tool_templates import HERMES

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
TOOL = {"name": "buy", "input_schema": {"type": "object"}}
OBJECT = {"format": {"type": "json_schema", "schema": {"type": "object"}}}


def details() -> dict[str, Any]:
    return {"type": "refusal", "category": None, "explanation": words()}


async def test_a_refusal_says_so_in_anthropics_own_fields_and_in_ours() -> None:
    async with guarded_server("Yes.") as server:
        content = (await MESSAGES.post(server, QUESTION)).json()
    Message.model_validate(content)
    assert content["content"] == [{"type": "text", "text": words()}]
    assert (content["stop_reason"], content["stop_sequence"]) == ("refusal", None)
    assert content["stop_details"] == details()
    assert content["x_refusal"] == {"stage": "input", "category": "weapons"}
    assert content["usage"]["output_tokens"] == 0


@pytest.mark.parametrize("body", [{}, {"output_config": OBJECT}])
async def test_no_text_is_where_the_words_have_a_field_of_their_own(body: Any, tmp_path: Path) -> None:
    policy = None if body else policy_in_style(tmp_path, "field")
    async with guarded_server(f'{{"a": "{EARLY}"}}', policy=policy) as server:
        for question in (QUESTION, "hello"):
            whole = (await MESSAGES.post(server, question, **body)).json()
            assert (whole["content"], whole["stop_details"]) == ([], details())
            streamed = data_of(await MESSAGES.post(server, question, stream=True, **body))
            assert [event["type"] for event in streamed] == [
                "message_start",
                "ping",
                "message_delta",
                "message_stop",
            ]
            assert streamed[-2]["delta"]["stop_details"] == details()


async def test_a_cut_stream_says_the_refusal_in_a_block_of_its_own_and_takes_back_those_before() -> None:
    async with guarded_server(CUT) as server:
        found = data_of(await MESSAGES.post(server, stream=True))
    for event in found:
        if event["type"] != "ping":
            SDK_EVENT.validate_python(event)
    starts = [event["index"] for event in found if event["type"] == "content_block_start"]
    stops = [event["index"] for event in found if event["type"] == "content_block_stop"]
    assert starts == stops == [0, 1]
    ending = found[-2]
    assert ending["x_moderation"] == {"retract": True}
    assert ending["delta"]["stop_reason"] == "refusal"
    assert ending["delta"]["x_refusal"] == {"stage": "output", "category": "weapons"}


async def test_a_call_that_is_taken_back_is_never_complete() -> None:
    said = f'<tool_call>\n{{"name": "buy", "arguments": {{"what": "{CUT}"}}}}\n</tool_call>'
    async with guarded_server(said, template=HERMES, context_length=2048) as server:
        found = data_of(await MESSAGES.post(server, stream=True, tools=[TOOL]))
        whole = (await MESSAGES.post(server, tools=[TOOL])).json()
    blocks = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
    assert blocks == ["tool_use", "text"]
    assert [event["index"] for event in found if event["type"] == "content_block_stop"] == [1]
    assert [block["type"] for block in whole["content"]] == ["text"]


async def test_a_refusal_that_comes_back_is_known() -> None:
    detector = WordDetector("words")
    async with guarded_server("Gladly.", detector=detector) as server:
        content = (await MESSAGES.post(server, QUESTION)).json()["content"]
        detector.seen.clear()
        history = [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": content},
            {"role": "user", "content": "hello"},
        ]
        reply = await MESSAGES.post(server, messages=history)
        prompt = str(TOKENIZER.decode(server.engine.requests[-1].prompt_ids))
    assert reply.json()["content"] == [{"type": "text", "text": "Gladly."}]
    assert not any(QUESTION in sample.text for sample in detector.seen)
    assert "(This message was declined.)" in prompt


async def test_the_sdk_reads_refusals_whole_and_streamed() -> None:
    async with guarded_server(CUT) as server:
        client = anthropic.AsyncAnthropic(
            base_url="http://127.0.0.1:8000", api_key="unused", max_retries=0, http_client=server.client
        )
        ask: Any = {"model": "test", "max_tokens": 400}
        refused = await client.messages.create(messages=[{"role": "user", "content": QUESTION}], **ask)
        assert refused.stop_details is not None
        assert (refused.stop_reason, refused.stop_details.explanation) == ("refusal", words())
        async with client.messages.stream(messages=[{"role": "user", "content": "hello"}], **ask) as stream:
            cut = await stream.get_final_message()
    texts = [block.text for block in cut.content if block.type == "text"]
    assert (cut.stop_reason, texts[1:]) == ("refusal", [words()])
    assert SHOWN.startswith(texts[0])
