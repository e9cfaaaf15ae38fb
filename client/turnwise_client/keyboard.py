"""What the keyboard does while a reply is being written: nothing is echoed, and Ctrl-C stops the reply, once."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Keep what is typed off the screen, where it would move the live rows; it waits for the next prompt instead."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    silent = termios.tcgetattr(descriptor)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _OneInterrupt:
    """Raises KeyboardInterrupt for the first SIGINT while armed; later ones would only disturb the tidying up."""

    def __init__(self) -> None:
        self._is_armed = True

    def disarm(self) -> None:
        self._is_armed = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise KeyboardInterrupt


@contextmanager
def one_interrupt() -> Iterator[_OneInterrupt]:
    """Let one Ctrl-C raise KeyboardInterrupt inside the context, until `disarm` is called on what is yielded."""
    gate = _OneInterrupt()
    before = signal.signal(signal.SIGINT, gate)
    try:
        yield gate
    finally:
        signal.signal(signal.SIGINT, before)


def tidy_up_when_terminated() -> None:
    """Make SIGTERM and SIGHUP leave through the same doors as everything else, so that the terminal is put right."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
