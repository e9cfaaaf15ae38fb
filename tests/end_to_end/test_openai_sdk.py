"""The official OpenAI SDK against the real server: what its users will meet."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from support.live_server import LiveServer, wait_until

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hello world"},
]
NO_END: dict[str, int] = {"0": -100, "2": -100}
"""Forbids both end tokens of the tiny tokenizer, so that replies run to `max_tokens`."""


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def whole(client: OpenAI, **options: Any) -> ChatCompletion:
    content: Any = {"model": "test", "messages": MESSAGES, "max_tokens": 16} | options
    return ChatCompletion.model_validate(client.chat.completions.create(**content))


def streamed(client: OpenAI, **options: Any) -> tuple[str, str | None, Any]:
    """Text, finish reason and usage of a streamed reply."""
    content: Any = {"model": "test", "messages": MESSAGES, "max_tokens": 16} | options
    text, reason, usage = "", None, None
    with client.chat.completions.create(
        **content, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    return text, reason, usage


def text_of(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


def test_streamed_and_whole_replies_are_equal_for_every_max_tokens(client: OpenAI) -> None:
    """Same text, finish reason and usage; no half characters, so each text continues the one before."""
    before = ""
    for max_tokens in range(1, 33):
        options = {"max_tokens": max_tokens, "seed": 11, "temperature": 1.0}
        completion = whole(client, **options)
        text, reason, usage = streamed(client, **options)
        assert text == text_of(completion)
        assert reason == completion.choices[0].finish_reason
        assert completion.usage is not None
        counts = ("prompt_tokens", "completion_tokens", "total_tokens")
        assert [getattr(usage, count) for count in counts] == [
            getattr(completion.usage, count) for count in counts
        ]
        assert text.startswith(before)
        before = text


def test_stop_strings_cut_both_modes_at_the_same_character(client: OpenAI) -> None:
    options = {"max_tokens": 48, "seed": 3, "logit_bias": NO_END}
    text = text_of(whole(client, **options))
    assert len(text) > 20
    for start, length in ((5, 1), (8, 3), (12, 6)):
        stop = text[start : start + length]
        expected = text[: text.index(stop)]
        stopped = whole(client, **options, stop=stop)
        assert text_of(stopped) == expected
        assert streamed(client, **options, stop=[stop, "never to be seen"])[:2] == (expected, "stop")


def test_the_stream_helper_rebuilds_the_whole_reply(client: OpenAI) -> None:
    expected = whole(client, seed=5)
    with client.chat.completions.stream(model="test", messages=MESSAGES, max_tokens=16, seed=5) as stream:
        stream.until_done()
        final = stream.current_completion_snapshot  # get_final_completion() raises on replies cut by length
    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].message.content == expected.choices[0].message.content


async def test_concurrent_requests_do_not_affect_each_other(client: OpenAI, server: LiveServer) -> None:
    """Each of eight differs in temperature, seed and stop; each says what it says alone."""
    variants: list[Any] = [
        {"temperature": 0.0},
        {"temperature": 0.7, "seed": 1},
        {"temperature": 1.3, "seed": 2, "stop": "e"},
        {"temperature": 1.0, "seed": 3, "top_p": 0.5},
        {"temperature": 1.0, "seed": 4, "frequency_penalty": 1.5},
        {"temperature": 0.9, "seed": 5, "extra_body": {"top_k": 5}},
        {"temperature": 1.0, "seed": 6, "logit_bias": {"40": 5}},
        {"temperature": 2.0, "seed": 7, "max_tokens": 9},
    ]
    alone = [text_of(whole(client, **({"max_tokens": 40} | variant))) for variant in variants]
    assert len(set(alone)) == len(alone)
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as async_client:
        together = await asyncio.gather(
            *(
                async_client.chat.completions.create(
                    model="test", messages=MESSAGES, **({"max_tokens": 40} | variant)
                )
                for variant in variants
            )
        )
    assert [text_of(completion) for completion in together] == alone


async def test_async_streams_run_side_by_side(client: OpenAI, server: LiveServer) -> None:
    alone = [text_of(whole(client, seed=seed)) for seed in range(6)]

    async def stream(async_client: AsyncOpenAI, seed: int) -> str:
        chunks = await async_client.chat.completions.create(
            model="test", messages=MESSAGES, max_tokens=16, seed=seed, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused") as async_client:
        assert await asyncio.gather(*(stream(async_client, seed) for seed in range(6))) == alone


def test_several_choices_come_whole_and_streamed(client: OpenAI) -> None:
    completion = whole(client, n=3, seed=9)
    texts = [choice.message.content for choice in completion.choices]
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert texts[0] == text_of(whole(client, seed=9))
    with client.chat.completions.stream(
        model="test", messages=MESSAGES, max_tokens=16, n=3, seed=9
    ) as stream:
        stream.until_done()
        final = stream.current_completion_snapshot  # get_final_completion() raises on replies cut by length
    assert [choice.message.content for choice in final.choices] == texts


def test_logprobs_join_to_the_text(client: OpenAI) -> None:
    completion = whole(client, seed=4, logprobs=True, top_logprobs=3)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    joined = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert joined.decode(errors="replace").startswith(text_of(completion))
    for token in logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob <= token.top_logprobs[0].logprob <= 0


def test_a_cancelled_request_frees_its_slot(client: OpenAI, server: LiveServer) -> None:
    chunks = client.chat.completions.create(
        model="test", messages=MESSAGES, max_tokens=400, logit_bias=NO_END, stream=True
    )
    next(iter(chunks))
    chunks.close()
    wait_until(lambda: server.ready()[1].get("running") == 0, 1.0)


def test_a_repeated_prompt_is_served_from_the_prefix_cache(client: OpenAI) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "the quick brown fox " * 10}]
    whole(client, messages=long)
    usage = whole(client, messages=long).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) >= usage.prompt_tokens - 1


def test_errors_arrive_as_the_sdks_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        whole(client, model="no-such-model")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        whole(client, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as too_long:
        whole(client, messages=[{"role": "user", "content": "hello " * 2000}])
    assert too_long.value.code == "context_length_exceeded"


def test_long_conversations_are_truncated_and_say_so(client: OpenAI) -> None:
    turns: list[Any] = [
        {"role": role, "content": f"hello number {index}"}
        for index in range(60)
        for role in ("user", "assistant")
    ]
    raw = client.chat.completions.with_raw_response.create(
        model="test", messages=[*turns, *MESSAGES[1:]], max_tokens=4
    )
    assert int(raw.headers["x-context-truncated"]) > 0
    with pytest.raises(openai.BadRequestError) as refused:
        whole(client, messages=[*turns, *MESSAGES[1:]], extra_body={"truncation": "disabled"})
    assert refused.value.code == "context_length_exceeded"


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test"]
    assert client.models.retrieve("test").owned_by
