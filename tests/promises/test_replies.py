"""Promises about what a reply says: whole characters, stop strings, usage, limits, logprobs, the same again."""

import asyncio
import itertools
import json
import math
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from support.asgi_connection import AsgiConnection, until
from support.fake_server import HELLO, TOKENIZER, FakeServer, encode, fake_server
from support.generating_routes import ROUTES, Said
from support.live_server import LiveServer, live_server
from support.tiny_checkpoints import write_tiny_checkpoint
from turnwise_server.chat.token_text import token_bytes
from turnwise_server.config import STARTER_MODEL

PROPERTY = settings(max_examples=8, deadline=None)
BYTES = token_bytes(TOKENIZER)
ENDLESS = "the quick brown fox " * 100
NO_END = {"0": -100, "2": -100}
"""Forbids both end tokens of the tiny model, so that its replies run to their limit."""


async def both(server: FakeServer, route: str, **more: Any) -> tuple[Said, list[str]]:
    """A reply that was asked for whole and streamed, and is the same; with the pieces of the stream."""
    whole = await ROUTES[route].whole(server, **more)
    streamed, pieces = await ROUTES[route].streamed(server, **more)
    assert streamed == whole
    return whole, pieces


@pytest.mark.parametrize("route", ROUTES)
@PROPERTY
@given(st.text(alphabet="aé日🎉\u200d\ufffd ", min_size=1, max_size=6))
@example("naïve 日本 🎉\ufffd")
async def test_promise_05_no_half_character_is_ever_sent_and_a_stream_is_the_whole_reply(
    route: str, text: str
) -> None:
    """At every length. A U+FFFD that the model wrote itself is kept; /v1/responses takes no length below 16."""
    tokens = encode("x" * 15 + text)
    async with fake_server(script=[tokens]) as server:
        for length in range(16, len(tokens) + 2):
            said, pieces = await both(server, route, **{ROUTES[route].limit: length})
            data = b"".join(map(BYTES, tokens[:length]))
            assert said.text == data.decode(errors="ignore")
            assert ("x" * 15 + text).startswith(said.text)
            assert "".join(pieces) == said.text


@pytest.mark.parametrize("route", [name for name, route in ROUTES.items() if route.stop])
@PROPERTY
@given(
    text=st.text(alphabet="ab\n", max_size=14),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=2),
)
@example("abab", ["abb"])
async def test_promise_06_a_stop_string_is_never_sent_and_what_only_began_like_one_is(
    route: str, text: str, stops: list[str]
) -> None:
    """Held back while it may become one, flushed where it does not; usage counts the tokens of the stop string."""
    tokens = encode(text)
    async with fake_server(script=[tokens]) as server:
        said, pieces = await both(server, route, **{ROUTES[route].stop or "": stops})
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert said.text == text
        assert said.completion_tokens == len(tokens) + 1
    else:
        stop = next(stop for stop in stops if text[: min(ends)].endswith(stop))
        assert not any(stop in said.text for stop in stops)
        assert any(text.startswith(said.text + stop) for stop in stops), stop
        lengths = itertools.accumulate(len(BYTES(token)) for token in tokens)
        assert said.completion_tokens == 1 + sum(length < min(ends) for length in lengths)
    assert said.reason == "stop"
    assert all(said.text.startswith("".join(pieces[:count])) for count in range(len(pieces) + 1))


@pytest.mark.parametrize("route", ROUTES)
async def test_promise_07_usage_is_exact_in_both_modes_and_logged_for_replies_that_were_left(
    route: str, log_lines: list[dict[str, Any]]
) -> None:
    async with fake_server("the quick brown fox jumps over", token_delay_s=0.002) as server:
        for length in (16, 20, 64):
            before = server.engine.stats().generated_tokens
            said, _ = await both(server, route, **{ROUTES[route].limit: length})
            assert said.prompt_tokens == len(server.engine.requests[-1].prompt_ids)
            assert 2 * said.completion_tokens == server.engine.stats().generated_tokens - before
        for stream in (False, True):
            before = server.engine.stats().generated_tokens
            body = ROUTES[route].body(stream=stream)
            connection = AsgiConnection(server.app, body, path=ROUTES[route].path)
            await until(lambda: server.engine.stats().generated_tokens > before + 3)  # noqa: B023
            connection.hang_up()
            await connection.task
            line = log_lines[-1]
            assert (line["status"], line["stream"]) == (499, stream)
            assert line["prompt_tokens"] == said.prompt_tokens
            generated = server.engine.stats().generated_tokens - before
            assert generated - 1 <= line["completion_tokens"] <= generated


async def test_promise_13_no_clock_spoils_the_prefix_cache_and_cached_tokens_are_always_told(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped template knows no time, nothing is added to a prompt, and every reply says what was cached."""
    template = (STARTER_MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    assert not any(word in template for word in ("strftime", "now(", "date_string", "time"))
    starter = AutoTokenizer.from_pretrained(STARTER_MODEL)
    system = [{"role": "system", "content": "Be kind."}, *HELLO]
    texts = [starter.apply_chat_template(system, tokenize=False, add_generation_prompt=True)]
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    texts.append(starter.apply_chat_template(system, tokenize=False, add_generation_prompt=True))
    assert texts[0] == texts[1]
    async with fake_server() as fake:
        await fake.chat()
        written = TOKENIZER.apply_chat_template(HELLO, add_generation_prompt=True, return_dict=False)
        assert list(fake.engine.requests[0].prompt_ids) == written
        for route in ROUTES:
            assert (await both(fake, route))[0].cached_tokens == 0
    prompt = "the quick brown fox jumps over the lazy dog. " * 4
    replies = [server.chat(messages=[{"role": "user", "content": prompt}]).json() for _ in range(2)]
    cached = [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
    assert cached[1] > 0.8 * replies[1]["usage"]["prompt_tokens"]


async def test_promise_18_greedy_and_seeded_replies_are_the_same_alone_and_among_eight_others(
    server: LiveServer,
) -> None:
    """Text for text, on a processor in float32."""
    fixed: list[dict[str, Any]] = [
        {"temperature": 0},
        *({"temperature": 1.2, "seed": seed, "logit_bias": NO_END} for seed in (1, 2)),
    ]
    others: list[dict[str, Any]] = [
        {
            "temperature": 1.5,
            "max_tokens": 20 + 7 * at,
            "messages": [{"role": "user", "content": "fox " * at}],
        }
        for at in range(1, 9)
    ]
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:

        async def say(body: dict[str, Any]) -> str:
            content = {"model": "test", "messages": HELLO, "max_tokens": 48} | body
            reply = await client.post("/v1/chat/completions", json=content)
            assert reply.status_code == 200, reply.text
            return str(reply.json()["choices"][0]["message"]["content"])

        for body in fixed:
            alone = await say(body)
            assert alone
            together = await asyncio.gather(*map(say, others[:4]), say(body), *map(say, others[4:]))
            assert together[4] == alone
        drawn = {await say({"temperature": 1.2, "logit_bias": NO_END}) for _ in range(3)}
        assert len(drawn) > 1, "without a seed the generator is fresh"


@pytest.mark.slow
async def test_promise_19_no_logprob_is_infinite_and_json_never_holds_what_is_no_number(
    tmp_path: Path,
) -> None:
    """A model that is broken (its head overflows to infinity and NaN) is answered in JSON that parsers read."""
    broken = write_tiny_checkpoint(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    (name,) = (name for name in weights if "embed_tokens" in name)
    weights[name] = weights[name].clone()
    weights[name][200:] = 0
    weights[name][200:205, 0] = 3e38
    weights[name][205:, 0] = -3e38
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    with live_server(broken, "--dtype", "float32") as server:
        for stream in (False, True):
            reply = server.chat(logprobs=True, top_logprobs=20, stream=stream, logit_bias=NO_END, seed=3)
            assert reply.status_code == 200
            lines = reply.text.splitlines() if stream else [reply.text]
            data = [line.removeprefix("data: ") for line in lines if line and "[DONE]" not in line]
            frames = [json.loads(line, parse_constant=refuse) for line in data]
            tokens = [
                token
                for frame in frames
                for choice in frame["choices"]
                for token in (choice.get("logprobs") or {"content": []})["content"]
            ]
            found = [entry["logprob"] for token in tokens for entry in (token, *token["top_logprobs"])]
            assert len(tokens) == 8
            assert all(math.isfinite(logprob) and -9999.0 <= logprob <= 0 for logprob in found)
            assert -9999.0 in found


@pytest.mark.parametrize("route", ROUTES)
async def test_promise_21_a_reply_has_a_finite_default_limit_that_is_shown_and_every_cap_says_length(
    route: str,
) -> None:
    asked = ROUTES[route]
    async with fake_server(ENDLESS, settings={"default_max_tokens": 50}) as server:
        model = (await server.client.get("/v1/models")).json()["data"][0]
        assert (model["default_max_tokens"], model["max_model_len"]) == (50, 512)
        body = {name: value for name, value in asked.body().items() if name != asked.limit}
        reply = await server.client.post(asked.path, json=body)
        if route == "messages":  # Anthropic's API has no default: it asks for one
            assert (reply.status_code, reply.json()["error"]["details"]["param"]) == (400, "max_tokens")
        else:
            said = asked.read(reply.json())
            default = 16 if route == "completions" else 50
            assert (said.completion_tokens, said.reason) == (default, "length")
        for length in (16, 100_000):
            said, _ = await both(server, route, **{asked.limit: length})
            assert said.reason == "length"
            assert said.completion_tokens == min(length, 512 - said.prompt_tokens)
    async with fake_server() as server:
        assert (await server.client.get("/v1/models")).json()["data"][0]["default_max_tokens"] == 512
