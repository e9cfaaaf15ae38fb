"""The parameter `moderation` of chat completions: scores of request and reply, and refusals of what is flagged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import ModerationOutputModerationResults as WholeResults
from openai.types.chat.chat_completion_chunk import ModerationOutputModerationResults as ChunkResults

from support.fake_server import FakeServer, fake_server
from support.guarded_server import WordDetector, guarded_server
from support.policies import policy_file
from turnwise_server.auth import KeyRing, hash_key
from turnwise_server.chat.refusal.policy_texts import FLAGGED_TEXT

NAME = "turnwise-safety-default"
KEY = "tw-eve-0123456789abcdef"


def moderation(request: str = "score", reply: str = "score") -> dict[str, Any]:
    policy = {"input": {"mode": request}, "output": {"mode": reply}}
    return {"model": "omni-moderation-latest", "policy": policy}


def asking(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A policy that lets harassment pass, and has no words for refusing it."""
    rules = {stage: {"threshold": "detector", "action": "annotate"} for stage in ("input", "output")}
    return policy_file(tmp_path, {}, {"harassment": {**rules, "refusal": None}})


def results(part: Any) -> list[set[str]]:
    """The names that are flagged, for each result."""
    assert (part["type"], part["model"]) == ("moderation_results", NAME)
    for one in part["results"]:
        assert (one["type"], one["model"], len(one["category_scores"])) == ("moderation_result", NAME, 13)
        assert one["flagged"] == any(one["categories"].values())
    return [{name for name, flag in one["categories"].items() if flag} for one in part["results"]]


def chunks_of(reply: httpx2.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_request_and_reply_are_scored_and_answered_as_ever(lenient: Path) -> None:
    async with guarded_server("you dwim", policy=lenient) as server:
        plain = (await server.chat(messages=asking("hello"))).json()
        reply = (await server.chat(messages=asking("hello"), moderation=moderation())).json()
    assert "moderation" not in plain
    assert reply["choices"] == plain["choices"]
    assert results(reply["moderation"]["input"]) == [set()]
    assert results(reply["moderation"]["output"]) == [{"harassment"}]


@pytest.mark.parametrize("policy", [{}, {"policy": None}, {"policy": {"input": None}}])
async def test_both_are_scored_where_the_policy_names_none(policy: dict[str, Any]) -> None:
    async with guarded_server("bake") as server:
        reply = (await server.chat(moderation={"model": "turnwise-safety"} | policy)).json()
    assert results(reply["moderation"]["input"]) == results(reply["moderation"]["output"]) == [set()]


async def test_every_choice_has_a_result_of_its_own(lenient: Path) -> None:
    async with guarded_server("bake", "you dwim", "cook", policy=lenient) as server:
        reply = (await server.chat(n=3, moderation=moderation())).json()
    flagged = [
        {"harassment"} if "dwim" in choice["message"]["content"] else set() for choice in reply["choices"]
    ]
    assert results(reply["moderation"]["output"]) == flagged
    assert flagged.count({"harassment"}) == 1


async def test_a_refused_request_has_scores_and_no_reply_to_score() -> None:
    async with guarded_server("bake") as server:
        reply = (await server.chat(messages=asking("a zorb"), moderation=moderation())).json()
    assert reply["choices"][0]["x_refusal"]["category"] == "weapons"
    assert results(reply["moderation"]["input"]) == [{"illicit/violent"}]
    assert results(reply["moderation"]["output"]) == []


async def test_a_cut_reply_is_scored_by_what_the_model_wrote() -> None:
    async with guarded_server("you zorb") as server:
        reply = (await server.chat(moderation=moderation())).json()
    assert reply["choices"][0]["finish_reason"] == "content_filter"
    assert results(reply["moderation"]["output"]) == [{"illicit/violent"}]


async def test_block_refuses_a_request_that_the_policy_lets_pass(lenient: Path) -> None:
    async with guarded_server("bake", policy=lenient) as server:
        reply = await server.chat(messages=asking("you dwim"), moderation=moderation(request="block"))
    (choice,) = reply.json()["choices"]
    assert reply.headers["x-refusal"] == "input/harassment"
    assert (choice["message"]["content"], choice["finish_reason"]) == (FLAGGED_TEXT, "stop")
    assert results(reply.json()["moderation"]["input"]) == [{"harassment"}]


async def test_block_cuts_a_reply_that_the_policy_lets_pass_and_no_other(lenient: Path) -> None:
    async with guarded_server("bake", "you dwim", policy=lenient) as server:
        reply = (await server.chat(n=2, moderation=moderation(reply="block"))).json()
    ends = {choice["finish_reason"]: choice["message"]["content"] for choice in reply["choices"]}
    assert ends == {"stop": "bake", "content_filter": FLAGGED_TEXT}


async def test_block_of_the_reply_leaves_the_request_to_the_policy(lenient: Path) -> None:
    async with guarded_server("bake", policy=lenient) as server:
        reply = (await server.chat(messages=asking("you dwim"), moderation=moderation(reply="block"))).json()
    assert reply["choices"][0]["message"]["content"] == "bake"
    assert results(reply["moderation"]["input"]) == [{"harassment"}]


async def test_block_says_the_words_of_the_category_where_it_has_some(tmp_path: Path) -> None:
    rule = {"threshold": "detector", "action": "allow"}
    policy = policy_file(tmp_path, {}, {"self_harm": {"input": rule}})
    async with guarded_server("bake", policy=policy) as server:
        reply = (await server.chat(messages=asking("a glim"), moderation=moderation("block"))).json()
    assert "findahelpline.com" in reply["choices"][0]["message"]["content"]


async def test_who_blocks_overrides_nothing(tmp_path: Path) -> None:
    policy = policy_file(tmp_path, {"override": {"allow_scopes": ["admin"], "never": []}})
    options: dict[str, Any] = {
        "keys": KeyRing([hash_key(KEY, "eve scope=admin")]),
        "headers": {"authorization": f"Bearer {KEY}", "x-safety-reason": "a test"},
    }
    async with guarded_server("bake", policy=policy, **options) as server:
        asked = asking("a zorb")
        overridden = (await server.chat(messages=asked, moderation=moderation())).json()
        blocked = (await server.chat(messages=asked, moderation=moderation("block"))).json()
    assert overridden["choices"][0]["message"]["content"] == "bake"
    assert blocked["choices"][0]["x_refusal"]["category"] == "weapons"


@pytest.mark.parametrize("includes_usage", [True, False])
async def test_a_stream_has_the_scores_in_a_chunk_of_their_own_before_the_usage(includes_usage: bool) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": includes_usage}}
    async with guarded_server("bake") as server:
        whole = (await server.chat(moderation=moderation())).json()
        chunks = chunks_of(await server.chat(**options, moderation=moderation()))
    (at,) = [index for index, chunk in enumerate(chunks) if "moderation" in chunk]
    assert chunks[at]["moderation"] == whole["moderation"]
    assert chunks[at]["choices"] == []
    assert [chunk.get("usage") for chunk in chunks[at:]] == (
        [None, whole["usage"]] if includes_usage else [None]
    )
    assert ("usage" in chunks[at]) is includes_usage


async def test_streamed_and_whole_say_the_same_of_a_blocked_reply(lenient: Path) -> None:
    body = {"messages": asking("hello"), "moderation": moderation("block", "block")}
    async with guarded_server("you dwim", policy=lenient) as server:
        whole = (await server.chat(**body)).json()
        chunks = chunks_of(await server.chat(**body, stream=True))
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert said == whole["choices"][0]["message"]["content"] == FLAGGED_TEXT
    assert chunks[-1]["moderation"] == whole["moderation"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stored_reply_keeps_its_scores(stream: bool) -> None:
    async with guarded_server("bake") as server:
        made = await server.chat(store=True, stream=stream, moderation=moderation())
        made_id = (chunks_of(made)[0] if stream else made.json())["id"]
        stored = (await server.client.get(f"/v1/chat/completions/{made_id}")).json()
    assert results(stored["moderation"]["output"]) == [set()]


async def test_what_could_not_be_scored_is_an_error_in_its_place(tmp_path: Path) -> None:
    closed = ["sexual_minors", "self_harm", "weapons", "violence", "hate", "harassment", "illicit", "sexual"]
    policy = policy_file(tmp_path, {}, {name: {"on_error": "open"} for name in closed})
    async with guarded_server("bake", policy=policy, detector=WordDetector("words", fails=True)) as server:
        reply = await server.chat(moderation=moderation("block", "block"))
    assert reply.headers["x-moderation"] == "skipped"
    for part in reply.json()["moderation"].values():
        assert set(part) == {"type", "code", "message"}
        assert (part["type"], part["code"]) == ("error", "moderation_unavailable")


INVALID: list[tuple[Any, str, str]] = [
    ({}, "moderation.model", "missing_required_parameter"),
    ([], "moderation", "invalid_type"),
    ({"model": 5}, "moderation.model", "invalid_type"),
    ({"model": "m", "policy": 5}, "moderation.policy", "invalid_type"),
    ({"model": "m", "policy": {"input": {}}}, "moderation.policy.input.mode", "missing_required_parameter"),
    ({"model": "m", "policy": {"input": "block"}}, "moderation.policy.input", "invalid_type"),
    ({"model": "m", "policy": {"output": {"mode": "off"}}}, "moderation.policy.output.mode", "invalid_value"),
]


@pytest.mark.parametrize(("value", "param", "code"), INVALID)
async def test_what_is_wrong_is_named(value: Any, param: str, code: str) -> None:
    async with guarded_server() as server:
        reply = await server.chat(moderation=value)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)


async def test_an_unknown_model_of_moderation_is_not_found_by_its_own_name() -> None:
    async with guarded_server() as server:
        reply = await server.chat(moderation={"model": "gpt-4o"})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "moderation.model")


async def test_a_server_without_a_classifier_promises_nothing() -> None:
    async with fake_server() as server:
        reply = await server.chat(moderation=moderation())
        assert not server.engine.requests
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "no_classifier", "moderation")


def sdk(server: FakeServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="unused", max_retries=0, http_client=server.client
    )


async def test_the_openai_sdk_reads_both_forms() -> None:
    body: Any = {"model": "test", "messages": asking("hello"), "moderation": moderation()}
    async with guarded_server("bake") as server:
        client = sdk(server)
        completion = await client.chat.completions.create(**body)
        chunks = [chunk async for chunk in await client.chat.completions.create(**body, stream=True)]
    assert isinstance(completion, ChatCompletion)
    for said in (completion.moderation, chunks[-1].moderation):
        assert said is not None
        assert isinstance(said.output, WholeResults | ChunkResults)
        assert [result.flagged for result in said.output.results] == [False]
    ChatCompletion.model_validate_json(completion.model_dump_json())
    ChatCompletionChunk.model_validate_json(chunks[-1].model_dump_json())
