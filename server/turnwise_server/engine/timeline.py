"""When what happened to one sequence, for metrics and traces: queued, started, and every token of it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timeline:
    """Moments of one sequence, in seconds of `time.perf_counter()`. It costs a tenth of a microsecond a token."""

    queued: float = field(default_factory=time.perf_counter)
    """When the engine took it into its queue."""
    started: float | None = None
    """When it left the queue; None while it waits."""
    _tokens: array[float] = field(default_factory=lambda: array("d"))

    @property
    def tokens(self) -> Sequence[float]:
        """When each token came from the engine, in order."""
        return self._tokens

    def mark_start(self, seconds_ago: float = 0.0) -> None:
        """Note that it left the queue; only the first time counts, and never before it was queued."""
        if self.started is None:
            self.started = max(self.queued, time.perf_counter() - seconds_ago)

    def mark_token(self) -> None:
        """Note that a token has come."""
        self._tokens.append(time.perf_counter())
