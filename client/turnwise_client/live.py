"""Show a growing reply in the normal screen: finished rows scroll away for good, the last block is redrawn in place.

Redraws run in a thread of their own, at most 20 a second and less often when one is slow, so that neither a fast
model nor a stalled one changes what is on the screen, and Ctrl-C never cuts an escape sequence in two.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.segment import Segment

from turnwise_client.blocks import BlockCommitter
from turnwise_client.render import BlockRenderer, Row, encode, row_width
from turnwise_client.sanitise import for_terminal

MIN_REDRAW_INTERVAL_S = 0.05
_MAX_REDRAW_SHARE = 0.1
"""Of one core: the model may be running on the same machine."""
_ERASE_BELOW = " \x1b[J\r"
"""From the second column, after a space on the first: erasing from the very corner of the screen makes tmux save the
whole screen as history (its option scroll-on-clear), a copy of the reply with every redraw."""
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"

Size = Callable[[], os.terminal_size]


class LiveRegion:
    """The rows at the bottom of what was written, which can be taken back and replaced.

    Live rows are written with the terminal's wrapping off. So each takes exactly one line, even where the terminal
    and Unicode's tables disagree about the width of an emoji, and going back up never overshoots.
    """

    def __init__(self, console: Console, stream: TextIO, size: Size) -> None:
        self._console = console
        self._stream = stream
        self._size = size
        self._live_widths: list[int] = []
        self._finished_widths: list[int] = []

    def show(self, finished: Sequence[Row], live: Sequence[Row]) -> None:
        """Replace the live rows by `finished`, which stay, and a new `live`, of which the last that fit are shown."""
        frame = self._back_to(self._live_widths) + _ERASE_BELOW
        self._finished_widths += map(row_width, finished)
        if finished:
            frame += encode(self._console, finished) + "\n"
        columns, lines = self._size()
        live = live[-max(1, lines - 1) :]
        if live:
            frame += _NO_WRAP + encode(self._console, live) + _WRAP
        self._live_widths = [min(row_width(row), columns) for row in live]
        self._stream.write(frame)
        self._stream.flush()

    def erase(self) -> None:
        """Take all rows back, finished ones too, as far as they are still on the screen."""
        # Below finished rows there is one more, if only an empty one.
        self._stream.write(
            self._back_to([*self._finished_widths, *(self._live_widths or [0])]) + _ERASE_BELOW
        )
        self._stream.flush()
        self._live_widths, self._finished_widths = [], []

    def _back_to(self, widths: Sequence[int]) -> str:
        """Go to the first of the last rows. Where the window was narrowed, the terminal has folded some of them."""
        columns, lines = self._size()
        rows = sum(max(1, -(-width // columns)) for width in widths)
        up = min(rows, lines) - 1
        return f"\x1b[{up}A\r" if up > 0 else "\r"


class MarkdownDisplay:
    """Shows one reply as markdown while it grows. Use it as a context: leaving it shows all of the rest."""

    def __init__(self, console: Console, stream: TextIO, size: Size, waiting: str) -> None:
        self._console = console
        self._region = LiveRegion(console, stream, size)
        self._size = size
        self._committer = BlockCommitter()
        self._renderer = BlockRenderer(console)
        self._waiting: Row = [Segment(waiting, console.get_style("quiet"))]
        self._lock = threading.Lock()
        self._unread = ""
        self._is_retracted = False
        self._has_text = False
        self._news = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._redraw_until_over, name="redraw", daemon=True)

    def __enter__(self) -> Self:
        self._region.show((), (self._waiting,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._news.set()
        self._thread.join()

    def feed(self, text: str) -> None:
        """Add text; it is on the screen within a redraw's time."""
        with self._lock:
            self._unread += text
        self._news.set()

    def retract(self) -> None:
        """Take back all text so far; what has scrolled off the screen stays there."""
        with self._lock:
            self._unread, self._is_retracted = "", True
        self._news.set()

    def _redraw_until_over(self) -> None:
        interval_s = MIN_REDRAW_INTERVAL_S
        while not self._is_over.wait(interval_s):
            self._news.wait()
            self._news.clear()
            started = time.monotonic()
            self._redraw()
            interval_s = max(MIN_REDRAW_INTERVAL_S, (time.monotonic() - started) / _MAX_REDRAW_SHARE)
        self._redraw_last()

    def _redraw(self) -> None:
        text = self._take_unread()
        width = self._size().columns
        finished = self._renderer.finished(self._committer.feed(text), width)
        live = self._renderer.unfinished(self._committer.live, width)
        self._region.show(finished, live if self._has_text else (self._waiting,))

    def _redraw_last(self) -> None:
        text = self._take_unread()
        blocks = [*self._committer.feed(text), *self._committer.finish()]
        self._region.show(self._renderer.finished(blocks, self._size().columns), ())

    def _take_unread(self) -> str:
        """Return the text that is new, and begin again if what was there is taken back."""
        with self._lock:
            text, self._unread = self._unread, ""
            is_retracted, self._is_retracted = self._is_retracted, False
        if is_retracted:
            self._region.erase()
            self._committer, self._renderer = BlockCommitter(), BlockRenderer(self._console)
        text = for_terminal(text)
        self._has_text = self._has_text or bool(text.strip())
        return text


class PlainDisplay:
    """Writes one reply as it comes. `clean` decides what may pass; a last newline is added where there is none."""

    def __init__(self, stream: TextIO, clean: Callable[[str], str]) -> None:
        self._stream = stream
        self._clean = clean
        self._last = "\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last != "\n":
            self.feed("\n")

    def feed(self, text: str) -> None:
        """Write text at once."""
        text = self._clean(text)
        if text:
            self._stream.write(text)
            self._stream.flush()
            self._last = text[-1]

    def retract(self) -> None:
        """Begin a paragraph: what is written cannot be taken back here."""
        self.feed("\n" if self._last == "\n" else "\n\n")


def stream_size(stream: TextIO) -> os.terminal_size:
    """Return the size of the terminal `stream` writes to; a usual one where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return shutil.get_terminal_size()
    return os.terminal_size((size.columns or 80, size.lines or 24))
