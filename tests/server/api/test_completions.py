"""POST /v1/completions: prompts of every kind, echo, logprobs, streams, and what is refused."""

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.asgi_connection import AsgiConnection, until
from support.fake_server import END_OF_TURN, TOKENIZER, FakeServer, encode, fake_server
from turnwise_server.api.text_completions.reply import TextCompletion
from turnwise_server.app import create_app


async def complete(server: FakeServer, **body: Any) -> httpx2.Response:
    return await server.client.post("/v1/completions", json={"model": "test", "prompt": "hello"} | body)


def frames(reply: httpx2.Response) -> list[dict[str, Any]]:
    found = [frame for frame in reply.text.split("\n\n") if not frame.startswith(":")]
    assert found[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in found[:-2]]


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices that the chunks of a stream add up to."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], {"text": "", "finish_reason": None, "tokens": []})
            choice["text"] += part["text"]
            choice["tokens"] += (part["logprobs"] or {"tokens": []})["tokens"]
            choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
    return choices


async def test_a_whole_completion_is_openais_object() -> None:
    async with fake_server("Hi!") as server:
        reply = await complete(server)
    content = reply.json()
    assert list(content) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert content["id"].startswith("cmpl-")
    assert content["object"] == "text_completion"
    assert content["choices"] == [{"text": "Hi!", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert content["usage"]["prompt_tokens"] == len(encode("hello"))
    assert content["usage"]["completion_tokens"] == len(encode("Hi!")) + 1


async def test_a_streamed_completion_byte_for_byte() -> None:
    async with fake_server(script=[encode("!")]) as server:
        reply = await complete(server, stream=True)
    first = json.loads(reply.text.split("\n\n")[1].removeprefix("data: "))
    head = {key: first[key] for key in ("id", "object", "created", "model")}
    start = "data: " + json.dumps(head, separators=(",", ":"))[:-1] + ',"choices":['
    end = f'],"system_fingerprint":"{first["system_fingerprint"]}"}}\n\n'
    assert reply.text == (
        ": ping\n\n"
        f'{start}{{"text":"!","index":0,"logprobs":null,"finish_reason":null}}{end}'
        f'{start}{{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}}{end}'
        "data: [DONE]\n\n"
    )


async def test_usage_comes_last_in_a_stream_that_asked_for_it() -> None:
    async with fake_server("Hi!") as server:
        whole = (await complete(server)).json()
        chunks = frames(await complete(server, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("hello", [encode("hello")]),
        (["hello", "world"], [encode("hello"), encode("world")]),
        ([5, END_OF_TURN], [[5, END_OF_TURN]]),
        ([[5], [6, 7]], [[5], [6, 7]]),
    ],
)
async def test_a_prompt_may_be_text_or_ids_one_or_several(prompt: object, prompts: list[list[int]]) -> None:
    async with fake_server("one", "two", "three", "four") as server:
        reply = (await complete(server, prompt=prompt, n=2)).json()
        asked = [list(request.prompt_ids) for request in server.engine.requests]
    assert asked == [ids for ids in prompts for _ in range(2)]
    assert [choice["index"] for choice in reply["choices"]] == list(range(len(asked)))
    assert [choice["text"] for choice in reply["choices"]] == ["one", "two", "three", "four"][: len(asked)]
    assert reply["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_control_tokens_in_a_text_prompt_are_text() -> None:
    async with fake_server() as server:
        await complete(server, prompt="<|im_end|>\n<|im_start|>system")
        ids = server.engine.requests[-1].prompt_ids
    assert not set(TOKENIZER.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])) & set(ids)
    assert TOKENIZER.decode(ids) == "<|im_end|>\n<|im_start|>system"


@pytest.mark.parametrize("prompt", ["Hello <|im_end|>", encode("Hello"), ["one", "two"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_echo_gives_the_prompt_back_before_every_choice(prompt: Any, stream: bool) -> None:
    async with fake_server(" there") as server:
        reply = await complete(server, prompt=prompt, echo=True, n=2, stream=stream)
    choices = joined(frames(reply)) if stream else dict(enumerate(reply.json()["choices"]))
    several = prompt if isinstance(prompt[0], str) and isinstance(prompt, list) else [prompt]
    texts = [each if isinstance(each, str) else TOKENIZER.decode(each) for each in several]
    assert [choices[index]["text"] for index in sorted(choices)] == [
        f"{text} there" for text in texts for _ in range(2)
    ]


async def test_logprobs_are_four_lists_of_one_length() -> None:
    text = "naïve 🎉!"
    async with fake_server(text) as server:
        choice = (await complete(server, logprobs=2, max_tokens=64)).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert list(logprobs) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert {len(values) for values in logprobs.values()} == {len(encode(text))}
    assert all(
        set(top) >= {token} for top, token in zip(logprobs["top_logprobs"], logprobs["tokens"], strict=True)
    )
    assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"])
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        is_part = token.startswith("bytes:")
        assert is_part or text[offset:].startswith(token)
        assert not is_part or text[offset] in "ï 🎉"


async def test_no_top_logprobs_still_show_the_chosen_token() -> None:
    async with fake_server("Hi") as server:
        logprobs = (await complete(server, logprobs=0)).json()["choices"][0]["logprobs"]
    assert [list(top) for top in logprobs["top_logprobs"]] == [[token] for token in logprobs["tokens"]]


@settings(max_examples=25)
@given(
    replies=st.lists(st.text(alphabet="ab é🎉\n", max_size=12), min_size=1, max_size=3),
    max_tokens=st.integers(1, 20),
    stop=st.none() | st.sampled_from(["a", "b ", "🎉"]),
    logprobs=st.none() | st.integers(0, 2),
    n=st.integers(1, 2),
    echo=st.booleans(),
)
async def test_a_stream_adds_up_to_the_whole_reply(
    replies: list[str], max_tokens: int, stop: str | None, logprobs: int | None, n: int, echo: bool
) -> None:
    options = {"max_tokens": max_tokens, "stop": stop, "n": n, "prompt": ["one", "two"], "seed": 5}
    options |= {"echo": echo} if logprobs is None else {"logprobs": logprobs}
    async with fake_server(
        script=lambda request: encode(replies[len(request.prompt_ids) % len(replies)])
    ) as server:
        whole = (await complete(server, **options)).json()
        chunks = frames(
            await complete(server, **options, stream=True, stream_options={"include_usage": True})
        )
    for chunk in chunks:
        TextCompletion.model_validate(chunk)
    choices = joined(chunks)
    assert len(choices) == 2 * n
    for choice in whole["choices"]:
        streamed = choices[choice["index"]]
        assert streamed["text"] == choice["text"]
        assert streamed["finish_reason"] == choice["finish_reason"]
        assert streamed["tokens"] == (choice["logprobs"] or {"tokens": []})["tokens"]
    assert chunks[-1]["usage"] == whole["usage"]


async def test_sixteen_tokens_are_the_default_as_at_openai() -> None:
    async with fake_server("a " * 40) as server:
        reply = (await complete(server)).json()
    assert reply["usage"]["completion_tokens"] == 16
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_a_reply_ends_where_the_context_does() -> None:
    async with fake_server("a " * 40, context_length=20) as server:
        reply = (await complete(server, prompt=[5] * 12, max_tokens=100)).json()
    assert reply["usage"]["completion_tokens"] == 8
    assert reply["choices"][0]["finish_reason"] == "length"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "invalid_type"),
    ({"prompt": 5}, "prompt", "invalid_type"),
    ({"prompt": {}}, "prompt", "invalid_type"),
    ({"prompt": []}, "prompt", "empty_array"),
    ({"prompt": ""}, "prompt", "empty_string"),
    ({"prompt": [[]]}, "prompt", "empty_string"),
    ({"prompt": ["a", ""]}, "prompt", "empty_string"),
    ({"prompt": ["a", 5]}, "prompt[1]", "invalid_type"),
    ({"prompt": [5, "a"]}, "prompt[1]", "invalid_type"),
    ({"prompt": [True]}, "prompt[0]", "invalid_type"),
    ({"prompt": [1.5]}, "prompt[0]", "invalid_type"),
    ({"prompt": [None]}, "prompt[0]", "invalid_type"),
    ({"prompt": [[5], "a"]}, "prompt[1]", "invalid_type"),
    ({"prompt": [[5], [-1]]}, "prompt[1][0]", "integer_below_min_value"),
    ({"prompt": [320]}, "prompt", "invalid_value"),
    ({"prompt": [2**70]}, "prompt", "invalid_value"),
    ({"prompt": "a\0"}, "prompt", "invalid_value"),
    ({"prompt": ["a"] * 65}, "prompt", "array_above_max_length"),
    ({"prompt": ["a"] * 33, "n": 2}, "n", "invalid_value"),
    ({"prompt": "hello world " * 400}, "prompt", "context_length_exceeded"),
    ({"prompt": [5] * 512}, "prompt", "context_length_exceeded"),
    ({"n": 9}, "n", "integer_above_max_value"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
    ({"logprobs": True}, "logprobs", "invalid_type"),
    ({"logprobs": 1, "echo": True}, "echo", "unsupported_value"),
    ({"best_of": 2}, "best_of", "unsupported_value"),
    ({"best_of": 1, "n": 2}, "best_of", "unsupported_value"),
    ({"suffix": "end"}, "suffix", "unsupported_parameter"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"logit_bias": {"320": 1}}, "logit_bias", "invalid_value"),
    ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSED)
async def test_what_cannot_be_served_is_refused_by_name(body: dict[str, Any], param: str, code: str) -> None:
    async with fake_server() as server:
        reply = await complete(server, **body)
        assert not server.engine.requests
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


async def test_a_prompt_that_is_too_long_is_refused_with_both_numbers() -> None:
    async with fake_server() as server:
        error = (await complete(server, prompt=[5] * 600)).json()["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (600, 512)


@pytest.mark.parametrize("asked", [{"best_of": 2, "n": 2}, {"best_of": 1}, {"suffix": None}, {"suffix": ""}])
async def test_what_asks_for_nothing_more_is_accepted(asked: dict[str, Any]) -> None:
    async with fake_server() as server:
        assert (await complete(server, **asked)).status_code == 200


async def test_sampling_parameters_and_extensions_reach_the_engine() -> None:
    asked = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3, "presence_penalty": 1.0}
    asked |= {"frequency_penalty": 0.5, "repetition_penalty": 1.1}
    async with fake_server() as server:
        await complete(server, **asked, logit_bias={"7": 2}, stop="zz", max_tokens=9)
        sampling = server.engine.requests[-1].sampling
    assert {name: getattr(sampling, name) for name in asked} == asked
    assert sampling.logit_bias == {7: 2}
    assert sampling.max_tokens == 9


async def test_unknown_parameters_are_named_and_unknown_models_refused() -> None:
    async with fake_server() as server:
        assert (await complete(server, use_beam_search=True)).headers["x-ignored-params"] == "use_beam_search"
        reply = await complete(server, model="other")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


async def test_a_stream_that_breaks_ends_with_an_error_and_without_done() -> None:
    async with fake_server("a " * 20, token_delay_s=0.01) as server:
        body = {"model": "test", "prompt": ["one", "two"], "stream": True}
        connection = AsgiConnection(create_app(server.services), body, path="/v1/completions")
        await until(lambda: server.engine.stats().generated_tokens > 4)
        server.engine.die()
        await connection.task
    last = connection.text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in connection.text


async def test_a_client_that_leaves_frees_the_places_of_all_its_prompts() -> None:
    async with fake_server("a " * 400, token_delay_s=0.01) as server:
        body = {"model": "test", "prompt": ["one", "two"], "n": 2, "max_tokens": 400}
        connection = AsgiConnection(create_app(server.services), body, path="/v1/completions")
        await until(lambda: server.engine.running == 4)
        connection.hang_up()
        await until(lambda: server.engine.running == 0, 1.0)
        await connection.task
