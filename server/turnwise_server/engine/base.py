"""What the rest of the server may ask of an engine. Token ids in, token ids out.

Every engine (torch in a process of its own, the scripted fake, others later) answers to `Engine`, so that the
chat layer and the HTTP layer are written and tested once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from turnwise_server.engine.timeline import Timeline


class FinishReason(StrEnum):
    """Why the engine stopped generating. Stop strings are text and so belong to the chat layer."""

    STOP = "stop"
    """The model produced one of `SamplingParams.stop_token_ids`."""
    LENGTH = "length"
    """`max_tokens` were produced, or the context is full."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request's tokens are chosen; `temperature` 0 is greedy. Values are validated by the API."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Keep the `top_k` most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than `min_p` times the most likely one."""
    seed: int | None = None
    """Same seed, prompt and model: same tokens, whatever else runs. None draws a fresh seed."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: frozenset[int] = frozenset()
    top_logprobs: int | None = None
    """None: no logprobs. n >= 0: the chosen token's, and those of the n most likely tokens."""
    grammar: str | None = None
    """Only tokens that this grammar (llguidance's text form) allows are chosen, a stop token only where it may end."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate. A reply with `n` choices is `n` requests."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    tenant: str = ""
    """Cached prefixes are shared inside a tenant only: a shared cache leaks prompts by its timing."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probabilities under the model's own distribution (before temperature and truncation)."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob), most likely first."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token. The last event of a sequence carries the finish reason (and, on STOP, the stop token)."""

    token_id: int
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    cached_tokens: int = 0
    """How many prompt tokens came from the prefix cache; the same on every event of a sequence."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the loaded model is; fixed for the life of the engine."""

    context_length: int
    vocab_size: int
    fingerprint: str
    """Hex digest over weights and configuration: equal fingerprints generate equally."""
    dtype: str
    """The number format computed with, after that of the weights if it is another: "bfloat16", "int8/bfloat16"."""
    device: str
    stop_token_ids: frozenset[int] = frozenset()
    """Union of every end-of-sequence and end-of-turn id the checkpoint names."""
    takes_grammars: bool = False
    """Whether `SamplingParams.grammar` may be given: not without stop tokens, nor for every kind of tokenizer."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for /ready, logs and metrics."""

    is_alive: bool
    running: int
    waiting: int
    seconds_since_step: float
    """Time since the engine last finished a step; only meaningful while something is running or waiting."""
    cached_prompt_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    kv_cache_usage: float = 0.0
    """Share of the KV memory budget in use, 0..1."""
    restarts: int = 0


class Generation(Protocol):
    """A sequence being generated: iterate it for tokens, or `cancel` it at any moment, more than once if you like."""

    @property
    def timeline(self) -> Timeline:
        """When it was queued and started, and when each token came, read or not."""
        ...

    def __aiter__(self) -> AsyncIterator[TokenEvent]: ...

    async def __anext__(self) -> TokenEvent:
        """Return the next token.

        Raises:
            StopAsyncIteration: after the event with a finish reason, or after `cancel`.
            EngineDeadError: the engine ended before the sequence did.
        """
        ...

    def cancel(self) -> None:
        """Stop generating and free the slot within one engine step. Never blocks; a no-op once finished."""
        ...


class Engine(Protocol):
    """Generates sequences, many at a time."""

    async def start(self) -> EngineInfo:
        """Load the model and return what it is.

        Raises:
            CheckpointError: the model directory cannot be served; the message names the file and the remedy.
        """
        ...

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a sequence. Returns at once: admission or refusal is immediate.

        Raises:
            QueueFullError: the queue holds as many requests or tokens as it may.
            EngineDeadError: the engine is not running.
        """
        ...

    def require_room(self, tenant: str) -> None:
        """Refuse, as `submit` would, where not even the shortest prompt of this tenant could be queued now.

        Costs nothing, so that an overloaded server can refuse before it does any work.

        Raises:
            QueueFullError: the queue is full, or this tenant's share of it.
            EngineDeadError: the engine is not running.
        """
        ...

    def stats(self) -> EngineStats:
        """Return a snapshot without waiting for the engine."""
        ...

    async def close(self) -> None:
        """End the engine and everything it started. Sequences still running raise EngineDeadError."""
        ...
