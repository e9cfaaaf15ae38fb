"""Says how far a stage is and how fast it goes: one line to look at, and timing.jsonl beside the log.

Times live here and never in log.jsonl, which must be the same for equal runs.
"""

import json
import resource
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

RECENT = 20
"""Speed and time left are those of this many steps."""


class Phases:
    """Where the time of a step goes: seconds and tokens of its parts, such as rollout, score, forward and update."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tokens: Counter[str] = Counter()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to phase `name`."""
        start = _now()
        try:
            yield
        finally:
            self._seconds[name] += _now() - start

    def count(self, name: str, tokens: int) -> None:
        """Say that phase `name` went through `tokens` more tokens."""
        self._tokens[name] += tokens

    def take(self) -> dict[str, dict[str, float]]:
        """Return the seconds and, where counted, tokens/s of every phase, and begin anew."""
        taken = {
            name: {"seconds": seconds}
            | ({"tokens_per_s": self._tokens[name] / seconds} if self._tokens[name] and seconds > 0 else {})
            for name, seconds in self._seconds.items()
        }
        self._seconds.clear()
        self._tokens.clear()
        return taken


class Progress:
    """One line a step, rewritten in place on a terminal and plain elsewhere; each step's times go to a file."""

    def __init__(self, *, steps: int, timing: Path | None = None, stream: TextIO | None = None) -> None:
        self._steps = steps
        self._timing = timing
        self._stream = stream or sys.stderr
        self._recent: list[tuple[float, int]] = [(_now(), 0)]
        self.phases = Phases()

    def show(self, step: int, *, tokens: int, **figures: float) -> None:
        """Report that `step` steps are done, the last one of `tokens` tokens, and the figures to watch."""
        self._recent = [*self._recent[-RECENT:], (_now(), tokens)]
        seconds = self._recent[-1][0] - self._recent[0][0]
        left = round(seconds / (len(self._recent) - 1) * (self._steps - step))
        peaks = peak_memory()
        self._write_timing(step, tokens, peaks)
        parts = [
            f"step {step}/{self._steps}",
            *(f"{name} {value:.3f}" for name, value in figures.items()),
            f"{sum(count for _, count in self._recent[1:]) / seconds:,.0f} tokens/s",
            *(f"{name} {size / 1e9:.1f} GB" for name, size in peaks.items()),
            f"{duration(left)} left",
        ]
        self._write_line("  ".join(parts), is_last=step == self._steps)

    def say(self, message: str) -> None:
        """Write a message on a line of its own."""
        self._stream.write(("\r\x1b[K" if self._stream.isatty() else "") + message + "\n")
        self._stream.flush()

    def _write_line(self, line: str, *, is_last: bool) -> None:
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
            self._stream.write("\r\x1b[K" + line[:width] + ("\n" if is_last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _write_timing(self, step: int, tokens: int, peaks: dict[str, int]) -> None:
        seconds = self._recent[-1][0] - self._recent[-2][0]
        line = {
            "step": step,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
            "peak_bytes": peaks,
            "phases": self.phases.take(),
        }
        if self._timing is not None:
            with self._timing.open("a") as file:
                file.write(json.dumps(line) + "\n")


def duration(seconds: int) -> str:
    """Return a number of seconds as people say it: 45s, 3m20s, 2h05m."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def peak_memory() -> dict[str, int]:
    """Return the most bytes this process ever held, in memory and on its GPU where it uses one."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peaks = {"memory": kilobytes * (1 if sys.platform == "darwin" else 1024)}  # macOS counts bytes
    if _uses_gpu():
        peaks["GPU"] = torch.cuda.max_memory_allocated()
    return peaks


def _now() -> float:
    if _uses_gpu():
        torch.cuda.synchronize()  # else the time of a kernel falls on the phase that happens to wait for it
    return time.monotonic()


def _uses_gpu() -> bool:
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return initialized
