"""The bytes of whole and streamed replies, as OpenAI's API sends them."""

import json
import re
from typing import Any

import httpx2
import pytest

from support.fake_server import FakeServer, encode, fake_server
from turnwise_server.api.wire import ChatCompletion, ChatCompletionChunk

ID = re.compile(r"chatcmpl-[A-Za-z0-9]{29}")
FINGERPRINT = re.compile(r"fp_[0-9a-f]{10}")
USAGE = (
    '{"prompt_tokens":PROMPT,"completion_tokens":REPLY,"total_tokens":TOTAL,'
    '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
HEAD = (
    'data: {"id":"ID","object":"chat.completion.chunk","created":NOW,"model":"test","service_tier":"default",'
    '"system_fingerprint":"FP","choices":['
)


def neutral(text: str) -> str:
    """Replace what differs from reply to reply."""
    text = FINGERPRINT.sub("FP", ID.sub("ID", text))
    text = re.sub(r'"created":\d{10}', '"created":NOW', text)
    text = re.sub(r'"prompt_tokens":\d+', '"prompt_tokens":PROMPT', text)
    text = re.sub(r'"completion_tokens":\d+', '"completion_tokens":REPLY', text)
    return re.sub(r'"total_tokens":\d+', '"total_tokens":TOTAL', text)


def chunks(reply: httpx2.Response) -> list[dict[str, Any]]:
    frames = reply.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def text_of(reply: httpx2.Response, index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content", "")
        for chunk in chunks(reply)
        for choice in chunk["choices"]
        if choice["index"] == index
    )


async def test_a_whole_reply_byte_for_byte() -> None:
    async with fake_server('Hi "you"! é🎉\n') as server:
        reply = await server.chat()
    assert neutral(reply.text) == (
        '{"id":"ID","object":"chat.completion","created":NOW,"model":"test",'
        '"choices":[{"index":0,"message":{"role":"assistant","content":"Hi \\"you\\"! é🎉\\n","refusal":null,'
        '"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":' + USAGE + ","
        '"service_tier":"default","system_fingerprint":"FP"}'
    )
    assert reply.headers["content-type"] == "application/json"


async def test_a_streamed_reply_byte_for_byte() -> None:
    async with fake_server(script=[[*encode("Hi"), *encode("!")]]) as server:
        reply = await server.chat(stream=True)
    assert len(encode("Hi")) == 2, "the tiny tokenizer splits it"
    assert neutral(reply.text) == (
        f'{HEAD}{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},"finish_reason":null}}]}}\n\n'
        f'{HEAD}{{"index":0,"delta":{{"content":"H"}},"finish_reason":null}}]}}\n\n'
        f'{HEAD}{{"index":0,"delta":{{"content":"i"}},"finish_reason":null}}]}}\n\n'
        f'{HEAD}{{"index":0,"delta":{{"content":"!"}},"finish_reason":null}}]}}\n\n'
        f'{HEAD}{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


async def test_a_streamed_reply_with_usage_byte_for_byte() -> None:
    async with fake_server(script=[encode("!")]) as server:
        reply = await server.chat(stream=True, stream_options={"include_usage": True})
    null = '],"usage":null}\n\n'
    assert neutral(reply.text) == (
        f'{HEAD}{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},"finish_reason":null}}{null}'
        f'{HEAD}{{"index":0,"delta":{{"content":"!"}},"finish_reason":null}}{null}'
        f'{HEAD}{{"index":0,"delta":{{}},"finish_reason":"stop"}}{null}'
        f'{HEAD}],"usage":{USAGE}}}\n\n'
        "data: [DONE]\n\n"
    )


async def test_stream_headers_keep_proxies_from_buffering() -> None:
    async with fake_server() as server:
        reply = await server.chat(stream=True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-request-id"].startswith("req_")
    assert int(reply.headers["openai-processing-ms"]) >= 0
    assert "content-encoding" not in reply.headers


async def test_logprobs_of_a_whole_reply_list_every_token() -> None:
    async with fake_server("é!") as server:
        reply = (await server.chat(logprobs=True, top_logprobs=2)).json()
    content = reply["choices"][0]["logprobs"]["content"]
    assert list(reply["choices"][0]["logprobs"]) == ["content", "refusal"]
    assert [list(token) for token in content] == [["token", "logprob", "bytes", "top_logprobs"]] * len(
        content
    )
    assert bytes(value for token in content for value in token["bytes"]).decode() == "é!"
    assert all(len(token["top_logprobs"]) == 2 for token in content)


async def test_streamed_logprobs_stand_in_the_chunks_that_carry_their_tokens() -> None:
    async with fake_server("Hi!") as server:
        streamed = chunks(await server.chat(stream=True, logprobs=True))
        whole = (await server.chat(logprobs=True)).json()
    choices = [chunk["choices"][0] for chunk in streamed]
    assert "logprobs" not in choices[0]
    assert "logprobs" not in choices[-1]
    assert all(list(choice) == ["index", "delta", "logprobs", "finish_reason"] for choice in choices[1:-1])
    tokens = [token for choice in choices[1:-1] for token in choice["logprobs"]["content"]]
    assert tokens == whole["choices"][0]["logprobs"]["content"]


async def test_logprobs_are_left_out_of_chunks_when_nobody_asked() -> None:
    async with fake_server() as server:
        assert '"logprobs"' not in (await server.chat(stream=True)).text


@pytest.mark.parametrize("n", [2, 3])
async def test_choices_open_in_order_and_count_the_prompt_once(n: int) -> None:
    async with fake_server("one", "two!", "three?") as server:
        streamed = chunks(await server.chat(stream=True, n=n, stream_options={"include_usage": True}))
        whole = (await server.chat(n=n)).json()
        single = (await server.chat()).json()
    assert [chunk["choices"][0]["index"] for chunk in streamed[:n]] == list(range(n))
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in streamed[:n])
    assert all("role" not in choice["delta"] for chunk in streamed[n:] for choice in chunk["choices"])
    assert [choice["index"] for choice in whole["choices"]] == list(range(n))
    assert whole["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    assert whole["usage"]["completion_tokens"] > single["usage"]["completion_tokens"]


async def test_usage_and_text_are_equal_in_both_modes_for_every_max_tokens() -> None:
    async with fake_server("naïve café 日本 🎉") as server:
        for max_tokens in range(1, 40):
            whole = (await server.chat(max_tokens=max_tokens)).json()
            streamed = await server.chat(
                max_tokens=max_tokens, stream=True, stream_options={"include_usage": True}
            )
            assert text_of(streamed) == whole["choices"][0]["message"]["content"]
            assert chunks(streamed)[-1]["usage"] == whole["usage"]
            assert chunks(streamed)[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


async def test_what_is_sent_is_what_the_document_says() -> None:
    """The frames are written by hand for speed; the models that document them must accept them unchanged."""
    async with fake_server("Hi!") as server:
        options: dict[str, Any] = {"logprobs": True, "top_logprobs": 1}
        whole = await server.chat(**options)
        streamed = await server.chat(stream=True, stream_options={"include_usage": True}, **options)
    assert ChatCompletion.model_validate(whole.json()).model_dump() == whole.json()
    for chunk in chunks(streamed):
        ChatCompletionChunk.model_validate(chunk, extra="forbid")


async def test_an_id_a_time_and_a_model_hold_for_the_whole_stream() -> None:
    async with fake_server("Hi!") as server:
        first, *rest = chunks(await server.chat(stream=True))
    for chunk in rest:
        assert {key: chunk[key] for key in ("id", "created", "model", "system_fingerprint")} == {
            key: first[key] for key in ("id", "created", "model", "system_fingerprint")
        }


def long_conversation() -> list[dict[str, str]]:
    roles = ["user", "assistant"] * 40
    return [{"role": role, "content": f"hello number {at}"} for at, role in enumerate([*roles, "user"])]


async def test_a_truncated_conversation_says_how_much_was_dropped() -> None:
    async with fake_server() as server:
        whole = await server.chat(messages=long_conversation())
        streamed = await server.chat(
            messages=long_conversation(), stream=True, stream_options={"include_usage": True}
        )
    dropped = int(whole.headers["x-context-truncated"])
    assert dropped > 0
    assert whole.json()["usage"]["prompt_tokens_details"]["x_truncated_messages"] == dropped
    assert streamed.headers["x-context-truncated"] == str(dropped)
    assert chunks(streamed)[-1]["usage"] == whole.json()["usage"]


async def test_a_conversation_that_fits_says_nothing_about_truncation() -> None:
    async with fake_server() as server:
        reply = await server.chat()
    assert "x-context-truncated" not in reply.headers
    assert "x_truncated" not in reply.text


@pytest.mark.parametrize("where", ["setting", "request"])
async def test_truncation_can_be_disabled(where: str) -> None:
    settings = {"truncation": "disabled"} if where == "setting" else {}
    body = {"truncation": "disabled"} if where == "request" else {}
    async with fake_server(settings=settings) as server:
        reply = await server.chat(messages=long_conversation(), **body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert error["n_ctx"] == 512
    assert error["n_prompt_tokens"] > 512
    assert f"{error['n_prompt_tokens']} tokens" in error["message"]


async def sent_to_engine(server: FakeServer, **body: Any) -> Any:
    assert (await server.chat(**body)).status_code == 200
    return server.engine.requests[-1].sampling


async def test_parameters_reach_the_engine() -> None:
    async with fake_server() as server:
        sampling = await sent_to_engine(
            server,
            temperature=0.5,
            top_p=0.25,
            top_k=7,
            min_p=0.125,
            presence_penalty=1,
            frequency_penalty=-1,
            repetition_penalty=1.5,
            logit_bias={"42": -100},
            max_completion_tokens=9,
        )
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.25, 7, 0.125)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert (sampling.repetition_penalty, dict(sampling.logit_bias)) == (1.5, {42: -100})
    assert sampling.max_tokens == 9


async def test_a_reply_without_a_limit_gets_the_default_one() -> None:
    async with fake_server(settings={"default_max_tokens": 77}) as server:
        assert (await sent_to_engine(server)).max_tokens == 77


async def test_a_limit_beyond_the_context_is_clamped_to_the_room_left() -> None:
    async with fake_server() as server:
        sampling = await sent_to_engine(server, max_tokens=100_000)
        prompt = len(server.engine.requests[-1].prompt_ids)
    assert sampling.max_tokens == 512 - prompt


@pytest.mark.parametrize("top_k", [-1, 0])
async def test_top_k_is_off_by_zero_and_by_minus_one(top_k: int) -> None:
    async with fake_server() as server:
        assert (await sent_to_engine(server, top_k=top_k)).top_k == 0


async def test_a_stop_string_or_a_list_of_them_cuts_the_reply() -> None:
    async with fake_server("one two three") as server:
        for stop in ("two", ["never", "two"]):
            choice = (await server.chat(stop=stop)).json()["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == ("one ", "stop")


IGNORED: dict[str, Any] = {
    "user": "u1",
    "safety_identifier": "s1",
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "reasoning_effort": "low",
    "verbosity": "high",
    "metadata": {"a": "b"},
    "store": False,
    "parallel_tool_calls": True,
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "stop": None,
    "n": None,
}


async def test_parameters_without_effect_are_accepted_silently() -> None:
    async with fake_server() as server:
        reply = await server.chat(**IGNORED)
    assert reply.status_code == 200
    assert "x-ignored-params" not in reply.headers


async def test_unknown_parameters_are_named_in_a_header() -> None:
    async with fake_server() as server:
        reply = await server.chat(guided_json={}, **{"best-of": 3, "bad\r\nx-evil: 1": 1, "é": 1})
    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "guided_json, best-of"
    assert "x-evil" not in reply.headers


async def test_messages_may_come_in_parts_and_in_every_role() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {
            "role": "user",
            "name": "ada",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": ""},
    ]
    async with fake_server() as server:
        assert (await server.chat(messages=messages)).status_code == 200


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_instructions_alone_are_a_conversation(truncation: str) -> None:
    async with fake_server("Hi!") as server:
        reply = await server.chat(messages=[{"role": "system", "content": "Greet."}], truncation=truncation)
    assert reply.status_code == 200
