"""The one line that says how far a stage is, how fast it goes and how long it will take."""

import sys
import time
from typing import TextIO


class Progress:
    """One line a step, rewritten in place on a terminal and plain elsewhere."""

    def __init__(self, *, steps: int, stream: TextIO = sys.stderr) -> None:
        self._steps = steps
        self._stream = stream
        self._recent: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def show(self, step: int, *, tokens: int, loss: float) -> None:
        """Report that `step` steps are done, the last one of `tokens` tokens."""
        self._recent = [*self._recent[-20:], (time.monotonic(), tokens)]
        seconds = self._recent[-1][0] - self._recent[0][0]
        left = round(seconds / (len(self._recent) - 1) * (self._steps - step))
        speed = f"{sum(count for _, count in self._recent[1:]) / seconds:,.0f} tokens/s"
        line = f"step {step}/{self._steps}  loss {loss:.3f}  {speed}  {left // 60}m{left % 60:02d}s left"
        self._stream.write(("\r\x1b[K" + line) if self._stream.isatty() else line + "\n")
        self._stream.flush()
