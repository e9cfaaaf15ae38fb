"""Drives an engine core through requests that come and go at given steps, with no process and no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turnwise_server.engine.base import GenerationRequest, SamplingParams, TokenEvent
from turnwise_server.engine.core import EngineCore
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.options import EngineOptions

GREEDY = SamplingParams(max_tokens=20, temperature=0.0)


@dataclass(slots=True)
class Driver:
    """A core and everything it has said."""

    core: EngineCore
    events: dict[int, list[TokenEvent]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    next_key: int = 0

    def submit(
        self, prompt_ids: Sequence[int], sampling: SamplingParams = GREEDY, *, tenant: str = ""
    ) -> int:
        """Queue a request and return its key."""
        key, self.next_key = self.next_key, self.next_key + 1
        self.core.submit(key, GenerationRequest(str(key), tuple(prompt_ids), sampling, tenant))
        self.events[key] = []
        return key

    def step(self, times: int = 1) -> None:
        """Step the core and keep what it says."""
        for _ in range(times):
            update = self.core.step()
            self.started += update.started
            for result in update.results:
                if result.event is None:
                    self.errors[result.key] = result.error
                else:
                    self.events[result.key].append(result.event)

    def finish(self) -> None:
        """Step until nothing is left to do."""
        while self.core.has_work:
            self.step()

    def tokens(self, key: int) -> list[int]:
        """Return the tokens generated for a key so far."""
        return [event.token_id for event in self.events[key]]

    def run(
        self, prompt_ids: Sequence[int], sampling: SamplingParams = GREEDY, *, tenant: str = ""
    ) -> list[int]:
        """Generate one request to its end and return its tokens."""
        key = self.submit(prompt_ids, sampling, tenant=tenant)
        self.finish()
        return self.tokens(key)


def new_driver(
    model: Path,
    *,
    max_batch: int = 8,
    prefill_chunk: int = 32,
    dtype: str = "float32",
    kv_memory_mb: int | None = 64,
    context_length: int | None = None,
) -> Driver:
    """Load a model and return a driver for it."""
    options = EngineOptions(
        str(model),
        device="cpu",
        dtype=dtype,
        threads=1,
        max_batch=max_batch,
        kv_memory_mb=kv_memory_mb,
        context_length=context_length,
        prefill_chunk=prefill_chunk,
    )
    return Driver(load_engine(options)[0])


def random_prompt(length: int, seed: int) -> list[int]:
    """Return token ids that a tiny model knows and that are not special."""
    return random.Random(seed).choices(range(3, 300), k=length)
