"""Refusals on every route that makes replies: what is said, what is taken back, and that streams say the same."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fake_server import encode
from support.guarded_server import guarded_server
from support.refusals import CUT, EARLY, QUESTION, ROUTES, SHOWN, Route, Said, data_of, policy_in_style, words

every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)


@every_route
async def test_a_refused_question_is_answered_in_the_words_of_the_policy(route: Route) -> None:
    expected = Said(words(), "input/weapons", route.complete)
    async with guarded_server("Yes.") as server:
        assert await route.said(server, QUESTION) == expected
        assert await route.said_in_stream(server, QUESTION) == expected


@every_route
async def test_an_answer_refused_before_any_of_it_was_shown_leaves_nothing_to_take_back(route: Route) -> None:
    expected = Said(words(), "output/weapons", route.cut)
    async with guarded_server(EARLY) as server:
        assert await route.said(server) == expected
        assert await route.said_in_stream(server) == expected


@every_route
async def test_a_stream_takes_back_what_it_had_shown_of_a_refused_answer(route: Route) -> None:
    async with guarded_server(CUT) as server:
        assert await route.said(server) == Said(words(), "output/weapons", route.cut)
        stream = await route.post(server, stream=True)
        assert route.streamed(data_of(stream)) == Said(
            words(), "output/weapons", route.cut, is_taken_back=True
        )
        assert "zorb" not in stream.text


@every_route
async def test_an_answer_that_passes_says_nothing_of_refusals(route: Route) -> None:
    async with guarded_server(SHOWN) as server:
        whole, streamed = await route.post(server), await route.post(server, stream=True)
    assert route.whole(whole.json()).text == route.streamed(data_of(streamed)).text == SHOWN
    for reply in (whole, streamed):
        assert "x_refusal" not in reply.text
        assert "x_moderation" not in reply.text
        assert "stop_details" not in reply.text
        assert not {"x-refusal", "x-moderation"} & set(reply.headers)


@every_route
async def test_only_a_whole_reply_can_say_in_a_header_that_it_is_refused(route: Route) -> None:
    async with guarded_server(EARLY) as server:
        assert (await route.post(server, QUESTION)).headers["x-refusal"] == "input/weapons"
        assert (await route.post(server)).headers["x-refusal"] == "output/weapons"
        assert "x-refusal" not in (await route.post(server, stream=True)).headers


@every_route
async def test_the_category_is_not_named_where_the_policy_keeps_it(route: Route, tmp_path: Path) -> None:
    file = policy_in_style(tmp_path, "content")
    file.write_text(file.read_text().replace("reveal_category: true", "reveal_category: false"))
    async with guarded_server("Yes.", policy=file) as server:
        reply = await route.post(server, QUESTION)
    assert route.whole(reply.json()).signal == "input/policy"
    assert reply.headers["x-refusal"] == "input/policy"


@every_route
@settings(max_examples=15, deadline=None)
@given(at=st.integers(0, len(SHOWN)), cuts=st.lists(st.integers(1, len(CUT) - 1), max_size=12))
async def test_streams_say_in_the_end_what_whole_replies_say(
    route: Route, at: int, cuts: Sequence[int]
) -> None:
    answer = f"{SHOWN[:at]} zorb {SHOWN[at:]}"
    bounds = sorted({0, *cuts, len(answer)})
    tokens = [token for start, end in pairwise(bounds) for token in encode(answer[start:end])]
    async with guarded_server(script=[tokens]) as server:
        whole, streamed = await route.said(server), await route.said_in_stream(server)
    assert whole == Said(words(), "output/weapons", route.cut)
    assert (streamed.text, streamed.signal, streamed.ending) == (whole.text, whole.signal, whole.ending)
