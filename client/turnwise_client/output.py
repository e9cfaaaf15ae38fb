"""Where a chat's words go: a terminal that redraws markdown, a terminal that cannot, or a pipe.

Replies and the answers of commands go to standard output, notices and errors to standard error. Whatever reaches a
terminal is sanitised; a pipe gets a reply exactly as the server sent it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum, auto
from typing import TextIO

from rich.console import Console
from rich.text import Text

from turnwise_client.live import MarkdownDisplay, PlainDisplay, stream_size
from turnwise_client.render import THEME
from turnwise_client.replies import Display
from turnwise_client.sanitise import for_terminal

_WAITING = "waiting for the reply, Ctrl-C stops"


class OutputMode(Enum):
    """What standard output can do."""

    MARKDOWN = auto()
    """A terminal that can go back and redraw."""
    PLAIN = auto()
    """A terminal where text is only ever added."""
    PIPE = auto()
    """A pipe or a file."""


def output_mode(stdout: TextIO, *, is_plain: bool) -> OutputMode:
    """Choose how to show replies on `stdout`."""
    if not stdout.isatty():
        return OutputMode.PIPE
    return OutputMode.PLAIN if is_plain or is_dumb_terminal() else OutputMode.MARKDOWN


def is_dumb_terminal() -> bool:
    """Tell whether the terminal understands no escape sequences."""
    return os.environ.get("TERM", "dumb").lower() in ("", "dumb", "unknown")


class Output:
    """Shows everything a session has to say."""

    def __init__(self, *, stdout: TextIO, stderr: TextIO, mode: OutputMode) -> None:
        self.mode = mode
        self._stdout = stdout
        self._console = Console(file=stdout, theme=THEME, highlight=False)
        self._errors = Console(file=stderr, theme=THEME, highlight=False)

    def display(self) -> Display:
        """Return a fresh display for one reply."""
        match self.mode:
            case OutputMode.MARKDOWN:
                return MarkdownDisplay(
                    self._console, self._stdout, lambda: stream_size(self._stdout), _WAITING
                )
            case OutputMode.PLAIN:
                return PlainDisplay(self._stdout, for_terminal)
            case OutputMode.PIPE:
                return PlainDisplay(self._stdout, str)

    def say(self, lines: Iterable[str]) -> None:
        """Show what a command answers."""
        for line in lines:
            self._print(self._console, line, "none")

    def notice(self, line: str) -> None:
        """Show something about a reply."""
        self._print(self._errors, f"[{line}]", "notice")

    def error(self, line: str) -> None:
        """Show what went wrong."""
        self._print(self._errors, line, "error")

    def _print(self, console: Console, line: str, style: str) -> None:
        console.print(Text(for_terminal(line), style=style), soft_wrap=True)
