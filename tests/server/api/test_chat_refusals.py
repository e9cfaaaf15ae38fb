"""Refusals in chat completions: every style, several choices, tools, logprobs, JSON forms, storage and history."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from support.fake_server import END_OF_TURN, TOKENIZER, FakeServer, encode
from support.guarded_server import WordDetector, guarded_server
from support.refusals import CUT, EARLY, QUESTION, SHOWN, chat_choices, data_of, policy_in_style, words
from support.tool_templates import HERMES
from turnwise_server.auth import KeyRing, hash_key

ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
SIGNAL = {"stage": "input", "category": "weapons"}
JSON_FORM = {"type": "json_object"}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "buy", "parameters": {"type": "object"}}}


def call(**arguments: str) -> str:
    said = json.dumps({"name": "buy", "arguments": arguments})
    return f"<tool_call>\n{said}\n</tool_call>"


def message_of(reply: httpx2.Response) -> tuple[str | None, str | None]:
    message = reply.json()["choices"][0]["message"]
    return message["content"], message["refusal"]


def deltas(reply: httpx2.Response) -> list[dict[str, Any]]:
    """What comes after the first frame, which only has the role."""
    return [chunk["choices"][0]["delta"] for chunk in data_of(reply)[1:] if chunk["choices"]]


@asynccontextmanager
async def sdk(*replies: str, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    async with guarded_server(*replies, **options) as server:
        yield AsyncOpenAI(
            base_url="http://127.0.0.1:8000/v1", api_key="unused", max_retries=0, http_client=server.client
        )


@pytest.mark.parametrize(
    ("style", "content", "refusal"),
    [("content", True, False), ("field", False, True), ("both", True, True)],
)
async def test_the_words_stand_where_the_style_says(
    style: str, content: bool, refusal: bool, tmp_path: Path
) -> None:
    expected = (words() if content else None, words() if refusal else None)
    fields = {name: text for name, text in zip(("content", "refusal"), expected, strict=True) if text}
    async with guarded_server(EARLY, policy=policy_in_style(tmp_path, style)) as server:
        assert message_of(await server.chat(messages=ASKED)) == expected
        assert message_of(await server.chat()) == expected
        for question in ({"messages": ASKED}, {}):
            assert deltas(await server.chat(stream=True, **question)) == [fields, {}]


@pytest.mark.parametrize("style", ["content", "field", "both"])
async def test_words_that_take_others_back_never_come_as_content(style: str, tmp_path: Path) -> None:
    async with guarded_server(CUT, policy=policy_in_style(tmp_path, style)) as server:
        chunks = data_of(await server.chat(stream=True))
    *_, words_chunk, end = [choice for chunk in chunks for choice in chunk["choices"]]
    signal = {"stage": "output", "category": "weapons"}
    assert words_chunk == {
        "index": 0,
        "delta": {"refusal": words()},
        "x_refusal": signal,
        "x_moderation": {"retract": True},
        "finish_reason": None,
    }
    assert end == {"index": 0, "delta": {}, "x_refusal": signal, "finish_reason": "content_filter"}


async def test_a_key_may_have_a_style_of_its_own() -> None:
    keys = KeyRing([hash_key("own", "own refusal=field"), hash_key("other")])
    async with guarded_server("Yes.", keys=keys) as server:
        found = []
        for key in ("own", "other"):
            server.client.headers["authorization"] = f"Bearer {key}"
            found.append(message_of(await server.chat(messages=ASKED)))
    assert found == [(None, words()), (words(), None)]


async def test_the_field_alone_has_the_words_where_the_reply_is_held_to_a_form() -> None:
    async with guarded_server(f'{{"a": "{EARLY}"}}') as server:
        assert message_of(await server.chat(messages=ASKED, response_format=JSON_FORM)) == (None, words())
        assert message_of(await server.chat(response_format=JSON_FORM)) == (None, words())
        streamed = await server.chat(messages=ASKED, response_format=JSON_FORM, stream=True)
    assert deltas(streamed) == [{"refusal": words()}, {}]


async def test_one_bad_choice_of_three_leaves_the_others_alone() -> None:
    async with guarded_server(SHOWN, CUT, SHOWN) as server:
        whole = (await server.chat(n=3)).json()["choices"]
        streamed = chat_choices(data_of(await server.chat(n=3, stream=True)))
    assert [choice["message"]["content"] for choice in whole] == [SHOWN, words(), SHOWN]
    assert [choice["finish_reason"] for choice in whole] == ["stop", "content_filter", "stop"]
    assert [choice.get("x_refusal") is not None for choice in whole] == [False, True, False]
    assert [streamed[index].text for index in range(3)] == [SHOWN, words(), SHOWN]
    assert [streamed[index].is_taken_back for index in range(3)] == [False, True, False]


async def test_a_refused_question_refuses_every_choice() -> None:
    async with guarded_server("Yes.") as server:
        reply = await server.chat(messages=ASKED, n=3)
        streamed = chat_choices(data_of(await server.chat(messages=ASKED, n=3, stream=True)))
    assert [choice["message"]["content"] for choice in reply.json()["choices"]] == [words()] * 3
    assert [streamed[index].text for index in range(3)] == [words()] * 3


async def test_a_refused_call_is_never_handed_over() -> None:
    said = call(what="zorb")
    async with guarded_server(said, template=HERMES, context_length=2048) as server:
        choice = (await server.chat(tools=[TOOL])).json()["choices"][0]
        streamed = await server.chat(tools=[TOOL], stream=True)
    assert choice["message"] == {
        "role": "assistant",
        "content": words(),
        "refusal": None,
        "annotations": [],
    }
    assert choice["finish_reason"] == "content_filter"
    assert "tool_calls" not in streamed.text
    assert "zorb" not in streamed.text


async def test_arguments_that_were_shown_are_taken_back_with_the_call() -> None:
    async with guarded_server(call(what=CUT), template=HERMES, context_length=2048) as server:
        choice = (await server.chat(tools=[TOOL])).json()["choices"][0]
        chunks = data_of(await server.chat(tools=[TOOL], stream=True))
    assert "tool_calls" not in choice["message"]
    *shown, taken_back, end = [choice for chunk in chunks for choice in chunk["choices"]]
    assert any("tool_calls" in choice["delta"] for choice in shown)
    assert taken_back["x_moderation"] == {"retract": True}
    assert end["finish_reason"] == "content_filter"


async def test_a_call_of_which_the_name_alone_was_shown_is_taken_back() -> None:
    """A name of 38 characters ends where the first 40 characters do."""
    name = "n" * 38
    said = f'<tool_call>\n{{"name": "{name}", "arguments": {{"what": "{SHOWN[:75]}zorb"}}}}\n</tool_call>'
    tool = {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    async with guarded_server(said, template=HERMES, context_length=2048) as server:
        chunks = data_of(await server.chat(tools=[tool], stream=True))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [call["function"]["arguments"] for call in calls] == [""]
    assert choices[-2]["x_moderation"] == {"retract": True}


async def test_a_form_has_no_caution_in_front() -> None:
    question = [{"role": "user", "content": "What about my symptoms?"}]
    async with guarded_server('{"a": 1}') as server:
        free = await server.chat(messages=question)
        held = await server.chat(messages=question, response_format=JSON_FORM)
    assert message_of(free)[0] != message_of(held)[0] == '{"a": 1}'


async def test_a_refusal_has_no_logprobs() -> None:
    async with guarded_server(EARLY) as server:
        for question in ({"messages": ASKED}, {}):
            whole = (await server.chat(logprobs=True, top_logprobs=2, **question)).json()["choices"][0]
            assert whole["logprobs"] == {"content": [], "refusal": None}
            streamed = await server.chat(logprobs=True, stream=True, **question)
            assert "logprob" not in streamed.text


async def test_logprobs_of_words_that_are_held_are_held_with_them() -> None:
    async with guarded_server(CUT) as server:
        streamed = await server.chat(logprobs=True, top_logprobs=1, stream=True)
    shown, tokens = "", ""
    for chunk in data_of(streamed):
        ChatCompletionChunk.model_validate(chunk)
        choice = chunk["choices"][0]
        shown += choice["delta"].get("content") or ""
        tokens += "".join(each["token"] for each in (choice.get("logprobs") or {"content": []})["content"])
        assert shown.startswith(tokens)
    assert 40 <= len(shown) < len(SHOWN)
    assert tokens


async def test_usage_counts_no_token_for_a_refused_question() -> None:
    async with guarded_server("Yes.") as server:
        whole = (await server.chat(messages=ASKED)).json()["usage"]
        streamed = data_of(
            await server.chat(messages=ASKED, stream=True, stream_options={"include_usage": True})
        )
        cut = data_of(await server.chat(stream=True, stream_options={"include_usage": True}))[-1]["usage"]
    assert whole["completion_tokens"] == 0
    assert streamed[-1]["usage"] == whole
    assert streamed[-1]["choices"] == []
    assert cut["total_tokens"] == cut["prompt_tokens"] + cut["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_stored_of_a_refusal_is_the_refusal(stream: bool) -> None:
    async with guarded_server(CUT) as server:
        for question, stage in (({"messages": ASKED}, "input"), ({}, "output")):
            reply = await server.chat(store=True, stream=stream, **question)
            identity = data_of(reply)[0]["id"] if stream else reply.json()["id"]
            found = (await server.client.get(f"/v1/chat/completions/{identity}")).json()["choices"][0]
            assert found["message"]["content"] == words()
            assert found["x_refusal"] == {"stage": stage, "category": "weapons"}
            assert found["finish_reason"] == ("stop" if stage == "input" else "content_filter")


async def test_the_stream_helper_of_the_sdk_tells_a_refusal_in_its_own_events(tmp_path: Path) -> None:
    seen: list[Any] = []
    async with (
        sdk("Yes.", policy=policy_in_style(tmp_path, "field")) as client,
        client.chat.completions.stream(model="test", messages=ASKED) as stream,
    ):
        async for event in stream:
            if event.type == "refusal.delta":
                seen.append((event.type, event.snapshot))
            elif event.type == "refusal.done":
                seen.append((event.type, event.refusal))
        message = (await stream.get_final_completion()).choices[0].message
    assert seen == [("refusal.delta", words()), ("refusal.done", words())]
    assert (message.content or None, message.refusal) == (None, words())


class Shopping(BaseModel):
    what: str


async def test_parse_returns_a_refused_question_and_raises_only_where_an_answer_was_cut() -> None:
    async with sdk(f'{{"what": "{EARLY}"}}') as client:
        refused = await client.chat.completions.parse(model="test", messages=ASKED, response_format=Shopping)
        assert refused.choices[0].message.parsed is None
        assert refused.choices[0].message.refusal == words()
        with pytest.raises(openai.ContentFilterFinishReasonError):
            await client.chat.completions.parse(
                model="test", messages=[{"role": "user", "content": "hello"}], response_format=Shopping
            )


def as_content(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def as_field(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "refusal": text}


def as_part(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "refusal", "refusal": text}]}


def as_both(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": text}


def behind_withdrawn_words(text: str) -> dict[str, Any]:
    """What SDKs make of a stream that takes words back, when they do not know that it can."""
    return {"role": "assistant", "content": SHOWN[:40], "refusal": text}


def prompt_of(server: FakeServer) -> str:
    return str(
        TOKENIZER.decode([token for token in server.engine.requests[-1].prompt_ids if token != END_OF_TURN])
    )


@pytest.mark.parametrize("form", [as_content, as_field, as_part, as_both, behind_withdrawn_words])
async def test_a_refusal_that_comes_back_is_known_and_what_it_answered_is_not_judged_again(form: Any) -> None:
    detector = WordDetector("words")
    async with guarded_server("Gladly.", detector=detector) as server:
        history = [*ASKED, form(words()), {"role": "user", "content": "And the weather?"}]
        reply = await server.chat(messages=history)
    assert reply.json()["choices"][0]["message"]["content"] == "Gladly."
    assert not any(QUESTION in sample.text for sample in detector.seen)
    prompt = prompt_of(server)
    assert "(This message was declined.)" in prompt
    assert words() in prompt
    assert QUESTION not in prompt
    assert SHOWN[:20] not in prompt


async def test_a_reply_in_pieces_of_any_size_is_refused_alike() -> None:
    for size in (1, 7, 40):
        pieces = [CUT[at : at + size] for at in range(0, len(CUT), size)]
        async with guarded_server(script=[[token for piece in pieces for token in encode(piece)]]) as server:
            said = chat_choices(data_of(await server.chat(stream=True)))[0]
        assert (said.text, said.ending, said.is_taken_back) == (words(), "content_filter", True)
