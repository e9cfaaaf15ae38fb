"""`turnwise chat` in a real pseudo-terminal: keys, streaming, interrupts, and what the server sees of them."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pexpect
import pytest

from support.scripted_openai import Script, ScriptedServer, scripted_openai, unused_url
from support.turnwise_process import COMMAND, TIMEOUT_S, environment

CTRL_C, CTRL_D, CTRL_J, CTRL_R = "\x03", "\x04", "\n", "\x12"
ENTER, ALT_ENTER, UP = "\r", "\x1b\r", "\x1b[A"
SLOW = Script(pieces=[f"word{number} " for number in range(2000)], delay_s=0.03)

Terminal: TypeAlias = "pexpect.spawn[str]"
StartChat = Callable[..., Terminal]

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78])")


def _heed_interrupts() -> None:
    """Give the program a terminal's usual signals, also where the tests run in the background and ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_chat(tmp_path: Path) -> Iterator[StartChat]:
    started: list[Terminal] = []

    def start(url: str, *arguments: str, size: tuple[int, int] = (24, 80), **extra: str) -> Terminal:
        terminal = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], "chat", "--server", url, *arguments],
            env=dict(environment(tmp_path, **extra)),
            dimensions=size,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            preexec_fn=_heed_interrupts,
        )
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close(force=True)


def _at_prompt(terminal: Terminal) -> str:
    """Wait for the prompt, answer its question where the cursor is, and return the bottom line."""
    terminal.expect_exact("\x1b[6n")
    terminal.send("\x1b[1;1R")
    terminal.expect(r"((scripted-1|no model yet)[^\x1b]*)\x1b")
    assert isinstance(terminal.match, re.Match)
    return str(terminal.match[1]).strip()


def _type(terminal: Terminal, text: str) -> None:
    terminal.send(text)
    # Enter in the same read as other keys is taken for a paste.
    time.sleep(0.3)
    terminal.send(ENTER)


def _ask(terminal: Terminal, text: str) -> None:
    _at_prompt(terminal)
    _type(terminal, text)


def _quit(terminal: Terminal) -> str:
    """Leave by Ctrl-D and return what was written since the last match."""
    _at_prompt(terminal)
    terminal.send(CTRL_D)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (terminal.exitstatus, terminal.signalstatus) == (0, None)
    assert terminal.before is not None
    return str(terminal.before)


def test_a_conversation_of_two_turns(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["One **bold** word."]), Script(pieces=["Two."])) as server:
        terminal = start_chat(server.url)
        terminal.expect("scripted-1 at http://.*/help")
        _ask(terminal, "first")
        terminal.expect("One \x1b\\[1mbold\x1b\\[0m word")
        assert _at_prompt(terminal) == "scripted-1 · 11 of 2,048 tokens · stop"
        _type(terminal, "second")
        terminal.expect("Two")
        _quit(terminal)

    assert server.requests[1].messages == [
        ("user", "first"),
        ("assistant", "One **bold** word."),
        ("user", "second"),
    ]


def test_ctrl_c_stops_the_reply_on_the_server_and_keeps_the_session(start_chat: StartChat) -> None:
    with scripted_openai(SLOW, Script(pieces=["Two."])) as server:
        terminal = start_chat(server.url)
        _ask(terminal, "first")
        terminal.expect("word3")
        terminal.send(CTRL_C)
        sent_at = time.monotonic()
        assert server.requests[0].hung_up.wait(10)
        assert time.monotonic() - sent_at < 5
        terminal.expect(r"\[interrupted\]")
        _ask(terminal, "second")
        terminal.expect("Two")
        _quit(terminal)

    (_, first), (role, partial), (_, second) = server.requests[1].messages
    assert (first, role, second) == ("first", "assistant", "second")
    assert partial.startswith("word0 word1 word2 word3 ")
    assert len(partial) < 5000


def test_ctrl_c_before_the_first_token_gives_the_question_back(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["x"], delay_s=60), Script(pieces=["Two."])) as server:
        terminal = start_chat(server.url)
        _ask(terminal, "first question")
        terminal.expect("waiting for the reply")
        while not server.requests:
            time.sleep(0.01)
        terminal.send(CTRL_C)
        assert server.requests[0].hung_up.wait(10)
        terminal.expect("interrupted before the reply began")
        _ask(terminal, "!")
        terminal.expect("Two")
        _quit(terminal)

    assert server.requests[1].messages == [("user", "first question!")]


def test_ctrl_c_at_an_empty_prompt_hints_and_then_quits(start_chat: StartChat) -> None:
    with scripted_openai() as server:
        terminal = start_chat(server.url)
        _at_prompt(terminal)
        terminal.send("typed")
        terminal.expect("typed")
        terminal.send(CTRL_C)
        time.sleep(0.3)
        terminal.send(CTRL_C)
        terminal.expect("Ctrl-C again, or Ctrl-D, quits")
        _at_prompt(terminal)
        terminal.send(CTRL_C)
        terminal.expect(pexpect.EOF)
        terminal.close()

    assert terminal.exitstatus == 0
    assert server.requests == []


@pytest.mark.parametrize(
    "typed", ["\x1b[200~one\r\ntwo\x1b[201~", f"one{CTRL_J}two", f"one{ALT_ENTER}two", "one\rtwo"]
)
def test_new_lines_are_typed_and_pasted_without_sending(start_chat: StartChat, typed: str) -> None:
    with scripted_openai() as server:
        terminal = start_chat(server.url)
        _ask(terminal, typed)
        terminal.expect("Hello")
        _quit(terminal)

    assert [seen.messages for seen in server.requests] == [[("user", "one\ntwo")]]


def test_what_is_typed_during_a_reply_is_not_echoed_into_it(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["start ", *["x"] * 30, " end"], delay_s=0.03)) as server:
        terminal = start_chat(server.url)
        _ask(terminal, "first")
        terminal.expect("start")
        terminal.send("TYPED\rAHEAD")
        terminal.expect(" end")
        assert "TYPED" not in str(terminal.before)
        _ask(terminal, "!")
        terminal.expect("start")
        _quit(terminal)

    assert server.requests[1].messages[-1] == ("user", "TYPED\nAHEAD!")


def test_an_unknown_command_never_reaches_the_model(start_chat: StartChat) -> None:
    with scripted_openai() as server:
        terminal = start_chat(server.url)
        _ask(terminal, "/frobnicate now")
        terminal.expect("there is no command '/frobnicate': /help lists them")
        _at_prompt(terminal)
        terminal.send(CTRL_C)
        time.sleep(0.3)
        terminal.send(CTRL_D)
        terminal.expect(pexpect.EOF)

    assert server.requests == []


def test_commands_change_the_session(start_chat: StartChat, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with scripted_openai() as server:
        terminal = start_chat(server.url)
        _ask(terminal, "/set temperature 0.25")
        terminal.expect("temperature: 0.25")
        _ask(terminal, "Hi")
        terminal.expect("Hello")
        _ask(terminal, "/retry")
        terminal.expect("Hello")
        _ask(terminal, f"/export json {path}")
        terminal.expect("Wrote")
        _ask(terminal, "/quit")
        terminal.expect(pexpect.EOF)

    assert [seen.messages for seen in server.requests] == [[("user", "Hi")]] * 2
    assert server.requests[1].body["temperature"] == 0.25
    assert len(json.loads(path.read_text())["messages"]) == 2


def test_a_failure_is_one_line_and_the_question_is_given_back(start_chat: StartChat) -> None:
    busy = Script(status=503, error={"message": "Busy."}, headers={"retry-after": "2"})
    with scripted_openai(
        busy, Script(pieces=["Part"], error={"message": "died"}), Script(pieces=["Two."])
    ) as server:
        terminal = start_chat(server.url)
        _ask(terminal, "first")
        terminal.expect(r"overloaded or not ready \(Busy\): try again in 2 s")
        _ask(terminal, "!")
        terminal.expect(r"\[incomplete\]")
        terminal.expect("the reply broke off: died")
        _ask(terminal, "second")
        terminal.expect("Two")
        _quit(terminal)

    assert server.requests[2].messages == [("user", "first!"), ("assistant", "Part"), ("user", "second")]


def test_no_server_at_the_start_is_said_and_the_session_goes_on(start_chat: StartChat) -> None:
    url = unused_url()
    terminal = start_chat(url)
    terminal.expect(f"no server at {url}: start one with `make serve`")
    _quit(terminal)


def test_history_is_private_and_comes_back(start_chat: StartChat, tmp_path: Path) -> None:
    with scripted_openai() as server:
        terminal = start_chat(server.url)
        _ask(terminal, "remember the milk")
        terminal.expect("Hello")
        _quit(terminal)
        again = start_chat(server.url)
        _at_prompt(again)
        again.send(CTRL_R + "milk")
        again.expect("remember the")
        time.sleep(0.3)
        again.send(ENTER)
        time.sleep(0.3)
        again.send(ENTER)
        again.expect("Hello")
        _quit(again)

    assert server.requests[1].messages == [("user", "remember the milk")]
    assert (tmp_path / "state" / "turnwise" / "history").stat().st_mode & 0o777 == 0o600


def _reply_bytes(terminal: Terminal, server: ScriptedServer, until: str) -> str:
    _ask(terminal, "Hi")
    while not server.requests:
        time.sleep(0.01)
    terminal.expect(until)
    return str(terminal.before)


def test_plain_shows_markdown_source_and_never_moves_the_cursor(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["# **Head", "**\n\n", "text\x1b[2J", " end"])) as server:
        terminal = start_chat(server.url, "--plain")
        written = _reply_bytes(terminal, server, " end")
        _quit(terminal)

    assert "# **Head**\r\n\r\ntext␛[2J" in written
    assert "waiting" not in written


def test_no_color_sends_no_colours(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["`code` **bold**\n\n```python\nx = 1\n```\n", "end."])) as server:
        terminal = start_chat(server.url, NO_COLOR="1")
        written = _reply_bytes(terminal, server, r"end\.")
        _quit(terminal)

    assert not re.search(r"\x1b\[(\d+;)*(3[0-7]|9[0-7]|38|48)(;\d+)*m", written)


def test_a_dumb_terminal_gets_no_escape_sequence_at_all(start_chat: StartChat) -> None:
    with scripted_openai(Script(pieces=["**text** ", "\x1b[2Jend"])) as server:
        terminal = start_chat(server.url, TERM="dumb")
        terminal.expect("> ")
        terminal.send("Hi\n")
        terminal.expect("end\r\n")
        terminal.expect("> ")
        terminal.send(CTRL_C)
        terminal.expect("Ctrl-C again")
        terminal.expect("> ")
        terminal.send(CTRL_D)
        terminal.expect(pexpect.EOF)
        terminal.close()

    assert terminal.exitstatus == 0
    assert server.requests[0].messages == [("user", "Hi")]


@pytest.mark.parametrize("size", [(3, 12), (5, 30), (2, 80)])
def test_a_tiny_window_still_holds_a_conversation(start_chat: StartChat, size: tuple[int, int]) -> None:
    text = "漢字 😀 " * 30 + "\n\n- a\n- b\n\n```\ncode\n```\n\nlast\n"
    with scripted_openai(Script(pieces=[text])) as server:
        terminal = start_chat(server.url, size=size, PROMPT_TOOLKIT_NO_CPR="1")
        terminal.expect("> ")
        _type(terminal, "Hi")
        terminal.expect("last")
        terminal.expect("> ")
        terminal.setwinsize(20, 70)
        _type(terminal, "/quit")
        terminal.expect(pexpect.EOF)
        terminal.close()

    assert terminal.exitstatus == 0
    assert server.requests[0].messages == [("user", "Hi")]


def test_escapes_from_the_model_never_reach_the_terminal(start_chat: StartChat) -> None:
    pieces = ["\x1b]0;title\x07", "\x9b2J", "&#27;[5m", "`\x1b[6m`", "\x1b", "[7mlast."]
    with scripted_openai(Script(pieces=pieces)) as server:
        terminal = start_chat(server.url)
        written = _reply_bytes(terminal, server, r"\[7mlast") + str(terminal.after)
        _quit(terminal)

    for sequence in ("\x1b]0;", "\x07", "\x9b", "\x1b[5m", "\x1b[6m", "\x1b[7mlast"):
        assert sequence not in written
    assert "␛]0;title␇" in _ESCAPES.sub("", written)
