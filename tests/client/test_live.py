"""The live display on a small terminal: in the end the screen holds the reply, once, whatever happened on the way."""

from __future__ import annotations

import os
from typing import TextIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from support.live_server import wait_until
from support.screen import Screen
from turnwise_client.blocks import BlockCommitter
from turnwise_client.live import LiveRegion, MarkdownDisplay, PlainDisplay
from turnwise_client.render import THEME, BlockRenderer
from turnwise_client.sanitise import for_terminal

REPLY = (
    """Intro with **bold** and `code`.
Second line.

# Heading

- one
- two
  - nested

1. first
2. second

```python
def f(x):
\treturn x

```

> quoted

| a | b |
|---|---|
| 1 | 2 |

See [here](http://example.org) <b>raw</b> ![alt](http://example.org/i.png).

漢字漢字漢字 😀 """
    + "a long line that has to be wrapped several times " * 6
)


def _console(width: int = 80) -> Console:
    return Console(theme=THEME, width=width, force_terminal=True, color_system="standard", highlight=False)


def _show(pieces: list[str], columns: int, lines: int) -> Screen:
    """Show a reply piece by piece, redrawing after each, as the display's thread would."""
    screen, committer, console = Screen(columns, lines), BlockCommitter(), _console()
    renderer = BlockRenderer(console)
    region = LiveRegion(console, cast("TextIO", screen), lambda: os.terminal_size((columns, lines)))
    for piece in pieces:
        finished = renderer.finished(committer.feed(for_terminal(piece)), columns)
        region.show(finished, renderer.unfinished(committer.live, columns))
    region.show(renderer.finished(committer.finish(), columns), ())
    return screen


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 10), (20, 5), (16, 2), (120, 60)])
@pytest.mark.parametrize("step", [1, 7])
def test_a_reply_shown_in_pieces_ends_up_as_when_shown_at_once(columns: int, lines: int, step: int) -> None:
    pieces = [REPLY[start : start + step] for start in range(0, len(REPLY), step)]

    assert _show(pieces, columns, lines).text == _show([REPLY], columns, lines).text


def test_a_reply_looks_as_its_markdown_means() -> None:
    assert _show([REPLY], 60, 24).text.startswith(
        """Intro with bold and code.
Second line.

Heading

 • one
 • two
    • nested

 1 first
 2 second

```python
def f(x):
\treturn x

```

▌ quoted

 a  b
 ────
 1  2

See here (http://example.org) <b>raw</b> !alt
(http://example.org/i.png).

漢字漢字漢字 😀 a long line"""
    )


@given(st.text(max_size=80), st.integers(1, 40), st.integers(1, 8))
def test_any_text_is_shown_on_any_window_without_commanding_the_terminal(
    text: str, columns: int, lines: int
) -> None:
    _show([text[:20], text[20:]], columns, lines)


def test_entities_cannot_smuggle_escapes_past_the_sanitiser() -> None:
    screen = _show(["&#27;[2J &#x9b;31m &#13;gone? `\x1b]0;title\x07`"], 80, 24)

    assert "gone?" in screen.text
    assert "[2J" in screen.text


def test_code_keeps_its_tabs_and_long_lines_for_copying() -> None:
    screen = _show(["```make\nall:\n\techo " + "x" * 100 + "\n```\n"], 40, 24)

    assert "\techo xxx" in screen.text
    assert screen.text.replace("\n", "").count("x") == 100


def test_the_fence_of_an_unknown_language_is_harmless() -> None:
    assert (
        _show(["```no-such-language\nplain <text>\n```\n"], 40, 24).text
        == "```no-such-language\nplain <text>\n```"
    )


def test_the_display_shows_everything_once_it_is_left() -> None:
    screen = Screen(60, 12)
    size = os.terminal_size((60, 12))
    with MarkdownDisplay(_console(60), cast("TextIO", screen), lambda: size, "waiting") as display:
        assert screen.text == "waiting"
        for start in range(0, len(REPLY), 5):
            display.feed(REPLY[start : start + 5])

    assert screen.text == _show([REPLY], 60, 12).text


def test_a_reply_without_text_leaves_nothing_behind() -> None:
    screen = Screen(60, 12)
    with MarkdownDisplay(
        _console(60), cast("TextIO", screen), lambda: os.terminal_size((60, 12)), "waiting"
    ) as display:
        display.feed("\n")

    assert screen.text == ""


@pytest.mark.parametrize("lines", [60, 12])
@pytest.mark.parametrize("shown", ["Half a line", "One block.\n\nAnother block.\n\nAnd half a", REPLY, ""])
@pytest.mark.parametrize("redraws", [True, False])
def test_what_is_taken_back_is_erased_as_far_as_it_is_on_the_screen(
    shown: str, lines: int, redraws: bool
) -> None:
    size = os.terminal_size((60, lines))
    screen = Screen(*size)
    screen.write("> the question\n")
    before = len(_show([shown], 60, lines).rows)
    with MarkdownDisplay(_console(60), cast("TextIO", screen), lambda: size, "waiting") as display:
        display.feed(shown)
        if redraws and shown:
            wait_until(lambda: not screen.text.endswith("waiting"), 5)
        display.retract()
        display.feed("I cannot ")
        display.feed("help.")

    if before < lines or not redraws:
        assert screen.text == "> the question\nI cannot help."
    else:
        assert screen.text.startswith("> the question\nIntro with bold")
        assert screen.text.endswith("\nI cannot help.")
        assert len(screen.rows) <= before


def test_a_plain_display_writes_below_what_it_cannot_take_back() -> None:
    screen = Screen(60, 12)
    with PlainDisplay(cast("TextIO", screen), for_terminal) as display:
        display.feed("Half a")
        display.retract()
        display.feed("I cannot help.")

    assert screen.text == "Half a\n\nI cannot help."


def test_plain_display_adds_the_missing_newline_and_cleans() -> None:
    screen = Screen(60, 12)
    with PlainDisplay(cast("TextIO", screen), for_terminal) as display:
        display.feed("**a**\x1b")
        display.feed("[0m\r")

    assert screen.rows == [list("**a**␛[0m"), []]
