"""Text completions with the official OpenAI SDK against the real server, and the routes about tokens beside them."""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from support.live_server import LiveServer

NO_END: dict[str, int] = {"0": -100, "2": -100}
"""Forbids both end tokens of the tiny tokenizer, so that replies run to `max_tokens`."""


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def complete(client: OpenAI, **options: Any) -> Completion:
    asked: Any = {"model": "test", "prompt": "hello world", "max_tokens": 12} | options
    return Completion.model_validate(client.completions.create(**asked))


def test_a_stream_adds_up_to_the_whole_completion_for_every_max_tokens(client: OpenAI) -> None:
    for max_tokens in (1, 2, 5, 12, 24):
        options: dict[str, Any] = {"max_tokens": max_tokens, "seed": 11, "prompt": ["hello", "world"], "n": 2}
        whole = complete(client, **options)
        texts, usage = ["", "", "", ""], None
        for chunk in client.completions.create(
            model="test", **options, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == [choice.text for choice in whole.choices]
        assert usage is not None
        assert whole.usage is not None
        assert usage.total_tokens == whole.usage.total_tokens


def test_prompts_of_one_request_are_answered_as_if_alone(client: OpenAI) -> None:
    prompts = ["hello", "the quick brown fox", "world"]
    alone = [complete(client, prompt=prompt, seed=3, n=2).choices for prompt in prompts]
    together = complete(client, prompt=prompts, seed=3, n=2).choices
    assert [choice.text for choice in together] == [choice.text for pair in alone for choice in pair]


def test_echo_and_logprobs_are_as_the_sdk_knows_them(client: OpenAI) -> None:
    assert complete(client, echo=True).choices[0].text.startswith("hello world")
    logprobs = complete(client, logprobs=3, logit_bias=NO_END).choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == len(logprobs.text_offset or []) == 12
    for top, token in zip(logprobs.top_logprobs or [], logprobs.tokens or [], strict=True):
        assert token in top
        assert max(top.values()) <= 0


def test_a_prompt_of_token_ids_is_read_as_its_text_would_be(client: OpenAI, server: LiveServer) -> None:
    body = {"model": "test", "prompt": "the quick brown fox"}
    tokens = httpx2.post(f"{server.url}/v1/tokenize", json=body).json()["tokens"]
    assert (
        complete(client, prompt=tokens, temperature=0).choices[0].text
        == complete(client, prompt="the quick brown fox", temperature=0).choices[0].text
    )


def test_a_chat_completion_is_the_completion_of_its_rendered_ids(client: OpenAI, server: LiveServer) -> None:
    messages: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    body = {"model": "test", "messages": messages}
    tokens = httpx2.post(f"{server.url}/v1/tokenize", json=body).json()["tokens"]
    chat = client.chat.completions.create(model="test", messages=messages, temperature=0, max_tokens=12)
    assert complete(client, prompt=tokens, temperature=0).choices[0].text == chat.choices[0].message.content


def test_a_message_that_was_begun_is_continued(client: OpenAI, server: LiveServer) -> None:
    messages: Any = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the quick"}]
    asked = {"continue_final_message": True, "add_generation_prompt": False}
    body = {"model": "test", "messages": messages} | asked
    prompt = httpx2.post(f"{server.url}/v1/apply-template", json=body).json()["prompt"]
    tokens = httpx2.post(f"{server.url}/v1/tokenize", json=body).json()["tokens"]
    chat = client.chat.completions.create(
        model="test", messages=messages, temperature=0, max_tokens=12, extra_body=asked
    )
    assert prompt.endswith("the quick")
    assert complete(client, prompt=tokens, temperature=0).choices[0].text == chat.choices[0].message.content


def test_errors_arrive_as_the_sdks_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as suffix:
        complete(client, suffix="the end")
    assert (suffix.value.param, suffix.value.code) == ("suffix", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as too_long:
        complete(client, prompt="hello " * 2000)
    assert (too_long.value.param, too_long.value.code) == ("prompt", "context_length_exceeded")
    with pytest.raises(openai.NotFoundError):
        complete(client, model="no-such-model")
