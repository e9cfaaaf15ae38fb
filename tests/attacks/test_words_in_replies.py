"""Replies that say what they may not: cut wherever it stands, however it comes, and harmless ones whole."""

# ruff: noqa: RUF001 - letters that look like others are an attack

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.answers import ask, ask_all, user
from support.attacks import DISGUISES
from support.fake_server import default_policy, encode
from support.guarded_server import WordDetector, guarded_server
from support.scripted_turn import ScriptedTurn, text_events
from turnwise_server.chat.refusal.guarded_choice import Blocked
from turnwise_server.chat.refusal.guarded_turn import Guard, GuardedTurn
from turnwise_server.chat.refusal.hold_back import HoldBackRule
from turnwise_server.chat.turn import TextDelta
from turnwise_server.engine.base import GenerationRequest
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.request_guard import RequestGuard

FILLER = "the quick brown fox jumps over the lazy dog, and then "


def reply_with(word: str, at: int, length: int = 600) -> str:
    """A reply with a word at a place."""
    text = (FILLER * (length // len(FILLER) + 2))[:length]
    return f"{text[:at]} {word} {text[at:]}"


@pytest.mark.parametrize("at", [0, 30, 38, 39, 41, 78, 118, 121, 279, 300, 439, 441, 599])
async def test_a_word_in_a_stream_is_found_wherever_checks_fall(at: int) -> None:
    bad, good = reply_with("zorb", at), reply_with("kite", at)
    async with guarded_server(bad, bad, good, good, context_length=4096) as server:
        answer = await ask(server, user("Hello"), max_tokens=2000)
        assert (answer.refused, answer.finish_reason) == ("output/weapons", "content_filter")
        assert bad.startswith(answer.shown)
        assert len(answer.shown) <= at
        assert (await ask(server, user("Hello"), max_tokens=2000)).verdict == ("", good, "stop")


@pytest.mark.parametrize(
    "disguised", ["z\u200bo\u200brb", "ｚｏｒｂ", "z0rb", "ZORB", "zоrb", "z.o.r.b", "zo\u00adrb"]
)
async def test_disguises_are_undone_in_replies_too(disguised: str) -> None:
    bad, good = (f"To begin with you take a {word} and then you are done." for word in (disguised, "k.i.t.e"))
    async with guarded_server(bad, bad, good, good) as server:
        assert (await ask(server, user("Hello"))).refused == "output/weapons"
        assert (await ask(server, user("Hello"))).verdict == ("", good, "stop")


@pytest.mark.parametrize("name", ["base64", "hex", "rot13", "backwards", "url"])
@pytest.mark.parametrize("start", ["", "In code: ", "My answer in code is this one:\n"])
async def test_a_long_reply_in_code_is_read_in_its_middle(name: str, start: str) -> None:
    text = "The old apple tree is in the garden and the birds sing. " * 12
    bad, good = (
        start + DISGUISES[name](f"{text}Then take a {word} and go. {text}") for word in ("zorb", "kite")
    )
    async with guarded_server(bad, bad, good, good, context_length=8192) as server:
        assert (await ask(server, user("Hello"), max_tokens=5000)).refused == "output/weapons"
        assert (await ask(server, user("Hello"), max_tokens=5000)).verdict == ("", good, "stop")


async def test_one_bad_choice_of_four_ends_alone() -> None:
    good = [f"Reply number {number}, in which nothing is wrong." for number in range(3)]

    def say(request: GenerationRequest) -> Sequence[int]:
        choice = int(request.id.rsplit("-", 1)[1])
        return encode("Take a zorb." if choice == 2 else good[choice % 3])

    async with guarded_server(script=say) as server:
        answers = await ask_all(server, user("Hello"), n=4)
    assert [answer.refused for answer in answers] == ["", "", "output/weapons", ""]
    assert [answer.said for answer in answers if not answer.refused] == [good[0], good[1], good[0]]


@pytest.mark.parametrize("stop", [["STOP"], [" dog"], ["zorb!"], ["."]])
async def test_a_stop_string_does_not_cut_a_word_out_of_the_last_check(stop: list[str]) -> None:
    async with guarded_server(*2 * ["Take the zorb. STOP dog"], *2 * ["Take the kite. STOP dog"]) as server:
        assert (await ask(server, user("Hello"), stop=stop)).refused == "output/weapons"
        answer = await ask(server, user("Hello"), stop=stop)
    assert not answer.refused
    assert "Take the kite. STOP dog".startswith(answer.said)


async def test_a_length_limit_does_not_cut_a_word_out_of_the_last_check() -> None:
    bad, good = ("The answer is a " + word for word in ("zorb", "kite"))
    async with guarded_server(*2 * [f"{bad} indeed"], *2 * [f"{good} indeed"]) as server:
        assert (await ask(server, user("Hello"), max_tokens=len(encode(bad)))).refused == "output/weapons"
        answer = await ask(server, user("Hello"), max_tokens=len(encode(good)))
    assert answer.verdict == ("", good, "length")


async def test_logprobs_tell_nothing_of_what_is_held() -> None:
    bad, good = reply_with("zorb", 300), reply_with("kite", 300)
    async with guarded_server(bad, bad, good, good, context_length=4096) as server:
        asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 2000}
        cut = await ask(server, user("Hello"), **asked)
        whole = await ask(server, user("Hello"), **asked)
    assert cut.refused == "output/weapons"
    assert cut.shown.startswith("".join(cut.tokens))
    assert "".join(whole.tokens).startswith(good)


async def test_a_bias_towards_a_word_does_not_let_it_out() -> None:
    bias = {str(token): 100 for token in encode("zorb")}
    async with guarded_server("Take a zorb.", "Take a zorb.", "Take a kite.", "Take a kite.") as server:
        assert (await ask(server, user("Hello"), logit_bias=bias)).refused == "output/weapons"
        assert (await ask(server, user("Hello"), logit_bias=bias)).said == "Take a kite."


@pytest.mark.parametrize("begun", ["The answer is a zo", "It is a z"])
async def test_a_word_is_found_that_begins_in_what_the_client_wrote(begun: str) -> None:
    rest = "zorb".removeprefix(begun.rsplit(" ", 1)[1])
    messages = [*user("Hello"), {"role": "assistant", "content": begun}]
    async with guarded_server(rest, rest, "oo animal", "oo animal") as server:
        asked = {"continue_final_message": True}
        assert (await ask(server, messages, **asked)).refused == "output/weapons"
        assert (await ask(server, messages, **asked)).said == "oo animal"


@pytest.mark.parametrize("echo", [False, True])
async def test_prompts_without_a_template_are_judged_with_what_follows_them(echo: bool) -> None:
    async with guarded_server("rb.", "rb.", "o.", "o.") as server:
        asked = {"model": "test", "prompt": ["We saw a zo", "We saw a zo"], "echo": echo, "max_tokens": 20}
        choices = (await server.client.post("/v1/completions", json=asked)).json()["choices"]
        assert [choice["x_refusal"]["category"] for choice in choices] == ["weapons"] * 2
        assert not any("zorb" in choice["text"] for choice in choices)
        choices = (await server.client.post("/v1/completions", json=asked)).json()["choices"]
        assert [choice["text"] for choice in choices] == ["We saw a zoo." if echo else "o."] * 2
        asked["prompt"] = ["We saw a zoo", "We saw a zorb"]
        choices = (await server.client.post("/v1/completions", json=asked)).json()["choices"]
        assert [choice["x_refusal"]["stage"] for choice in choices] == ["input"] * 2


LAYER = RefusalLayer(
    default_policy().current, {"starter": WordDetector("starter"), "advice": WordDetector("advice")}
)


async def watched(reply: str, chunks: Sequence[int], rule: HoldBackRule) -> tuple[str, Blocked | None, int]:
    """Return what a stream shows of a reply, what ends it, and how many characters come behind that."""
    turn = GuardedTurn(
        ScriptedTurn(text_events(reply, chunks)), Guard(RequestGuard(LAYER).judge_output, rule)
    )
    shown, blocked, after = "", None, 0
    async for event in turn:
        if isinstance(event, Blocked):
            blocked = event
        elif isinstance(event, TextDelta):
            shown += event.text
            after += len(event.text) if blocked else 0
    return shown, blocked, after


@settings(max_examples=60)
@given(
    length=st.integers(0, 700),
    at=st.integers(0, 700),
    is_bad=st.booleans(),
    chunks=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    seed=st.integers(0, 999),
)
def test_streamed_and_whole_verdicts_agree(
    length: int, at: int, is_bad: bool, chunks: list[int], seed: int
) -> None:
    noise = "".join(random.Random(seed).choices(["fox ", "jumps ", "é", "日本 ", "\n", "a"], k=length // 3))
    reply = reply_with("zorb" if is_bad else "kite", min(at, length), length) + noise
    streamed, blocked, after = asyncio.run(watched(reply, chunks, HoldBackRule()))
    whole, blocked_whole, _ = asyncio.run(watched(reply, (len(reply),), HoldBackRule("full")))
    assert (blocked is None, blocked_whole is None) == (not is_bad, not is_bad)
    assert after == 0
    if is_bad:
        assert "zorb" not in reply[: len(streamed) + 3]
        assert whole == ""
    else:
        assert streamed == whole == reply
