"""What the engine core says after each step. Light: the side that faces the server imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnwise_server.engine.base import TokenEvent


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step produced for a sequence: a token, or the reason it failed."""

    key: int
    event: TokenEvent | None
    error: str = ""
    is_grammar_fault: bool = False
    """Its grammar could not be followed any further; nothing is wrong with the engine."""


@dataclass(frozen=True, slots=True)
class CoreCounters:
    """Totals since the core was made, and how full its cache is."""

    cached_prompt_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    kv_cache_usage: float = 0.0


@dataclass(frozen=True, slots=True)
class StepUpdate:
    """Everything that changed in one step."""

    started: tuple[int, ...] = ()
    """Keys of the sequences that left the queue."""
    results: tuple[StepResult, ...] = ()
    counters: CoreCounters = field(default_factory=CoreCounters)
    seconds: float = 0.0
    """How long the step took: what started with it started so long before it is reported."""
