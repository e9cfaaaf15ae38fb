"""Windows cover every character, at places that depend on the text alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.refusal.normalise import Form
from turnwise_server.chat.refusal.policy_stages import InputStage
from turnwise_server.chat.refusal.windows import Window, spans, top_scores, windows


@given(st.text("ab \n\u0301e", max_size=2000), st.integers(50, 400), st.floats(0, 0.9))
def test_windows_cover_every_character(text: str, size: int, share: float) -> None:
    covered = 0
    for start, end in spans(text, size, int(size * share)):
        assert start <= covered
        assert end - start <= size + 32
        covered = max(covered, end)
    assert covered == len(text)


def test_a_short_text_is_one_window_and_an_empty_one_none() -> None:
    assert list(spans("hello", 1200, 200)) == [(0, 5)]
    assert list(spans("a" * 1200, 1200, 200)) == [(0, 1200)]
    assert list(spans("", 1200, 200)) == []


def test_windows_begin_with_a_word() -> None:
    text = "seven words stand here in a row " * 200
    assert all(text[start - 1] == " " for start, _ in list(spans(text, 1200, 200))[1:])


def test_neighbours_share_enough_that_a_sentence_stands_whole_in_one() -> None:
    text = "x" * 1100 + " a sentence that begins before the end of a window " + "y" * 1100
    found = windows([Form("canonical", text)], InputStage())
    assert any("a sentence that begins before the end of a window" in window.text for window in found)


def test_every_form_has_windows_with_its_name() -> None:
    found = list(windows([Form("canonical", "a" * 3000), Form("leet", "b")], InputStage()))
    assert [window.form for window in found] == ["canonical"] * 3 + ["leet"]


def test_the_highest_score_counts_and_tells_its_window() -> None:
    first, second = Window("canonical", 0, 5, "first"), Window("leet", 0, 6, "second")
    top = top_scores([first, second], [{"x": 0.2, "y": 0.9}, {"x": 0.4, "y": 0.1}])
    assert (top["x"].score, top["x"].window) == (0.4, second)
    assert (top["y"].score, top["y"].window) == (0.9, first)
