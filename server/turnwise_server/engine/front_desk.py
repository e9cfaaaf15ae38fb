"""The side of an engine that faces the server: admits or refuses requests, hands out events, keeps the figures."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from turnwise_server.engine.base import EngineInfo, EngineStats, GenerationRequest
from turnwise_server.engine.generation import PushedGeneration
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate
from turnwise_server.engine.waiting_room import WaitingRoom
from turnwise_server.errors import ContextLengthError, EngineError, GrammarError, RequestError


@dataclass(slots=True, eq=False)
class _Ticket:
    generation: PushedGeneration
    tenant: str
    prompt_tokens: int
    has_started: bool = False


@dataclass(slots=True)
class FrontDesk:
    """Live generations by key, and those of them that wait. Knows nothing of how the engine is reached."""

    max_batch: int
    max_queued_requests: int
    max_queued_tokens: int | None
    info: EngineInfo | None = None
    restarts: int = 0
    _tickets: dict[int, _Ticket] = field(default_factory=dict)
    _keys: itertools.count[int] = field(default_factory=itertools.count)
    _room: WaitingRoom = field(init=False)
    _last_step: float = field(default_factory=time.monotonic)
    _counters: CoreCounters = field(default_factory=CoreCounters)
    _past: CoreCounters = field(default_factory=CoreCounters)

    def __post_init__(self) -> None:
        self._room = WaitingRoom(self.max_queued_requests, self.max_queued_tokens)

    def admit(
        self, request: GenerationRequest, cancel: Callable[[int], None]
    ) -> tuple[int, PushedGeneration]:
        """Take a request into the queue and return its key and its generation.

        Raises:
            RequestError: the request asks for what the model cannot do.
            QueueFullError: too much is waiting.
        """
        assert self.info is not None
        _check(request, self.info)
        self.require_room(request.tenant, len(request.prompt_ids))
        key = next(self._keys)
        if not self._tickets:
            self._last_step = time.monotonic()

        def withdraw() -> None:
            self._close(key)
            cancel(key)

        generation = PushedGeneration(withdraw)
        self._tickets[key] = _Ticket(generation, request.tenant, len(request.prompt_ids))
        self._room.enter(request.tenant, len(request.prompt_ids))
        return key, generation

    def require_room(self, tenant: str, tokens: int = 1) -> None:
        """Refuse a prompt of at least so many tokens if it could not be queued now.

        Raises:
            QueueFullError: too much is waiting, or too much of this tenant.
        """
        assert self.info is not None
        free = max(0, self.max_batch - self._running)
        self._room.check(tenant, tokens, free=free, context_length=self.info.context_length)

    def deliver(self, update: StepUpdate) -> None:
        """Hand one step's events to their generations."""
        self._last_step = time.monotonic()
        self._counters = update.counters
        for key in update.started:
            if key in self._tickets:
                self._start(self._tickets[key])
                self._tickets[key].generation.timeline.mark_start(update.seconds)
        for result in update.results:
            ticket = self._tickets.get(result.key)
            if ticket is None:
                continue
            if result.event is None:
                self._close(result.key)
                ticket.generation.fail(_fault(result))
                continue
            if result.event.finish_reason:
                self._close(result.key)
            ticket.generation.push(result.event)

    def fail_all(self, error: EngineError) -> None:
        """End every generation with an error; the engine that served them is gone."""
        self._past = _sum(self._past, self._counters)
        self._counters = CoreCounters()
        for key, ticket in list(self._tickets.items()):
            self._close(key)
            ticket.generation.fail(error)

    def stats(self, *, is_alive: bool) -> EngineStats:
        """Return a snapshot."""
        totals = _sum(self._past, self._counters)
        return EngineStats(
            is_alive=is_alive,
            running=self._running,
            waiting=self._room.requests,
            seconds_since_step=time.monotonic() - self._last_step,
            cached_prompt_tokens=totals.cached_prompt_tokens,
            prompt_tokens=totals.prompt_tokens,
            generated_tokens=totals.generated_tokens,
            kv_cache_usage=totals.kv_cache_usage,
            restarts=self.restarts,
        )

    @property
    def _running(self) -> int:
        return len(self._tickets) - self._room.requests

    def _start(self, ticket: _Ticket) -> None:
        if not ticket.has_started:
            ticket.has_started = True
            self._room.leave(ticket.tenant, ticket.prompt_tokens)

    def _close(self, key: int) -> None:
        ticket = self._tickets.pop(key, None)
        if ticket:
            self._start(ticket)


def _fault(result: StepResult) -> EngineError:
    if result.is_grammar_fault:
        return GrammarError(f"The grammar could not be followed any further: {result.error}")
    return EngineError(f"The engine failed while generating: {result.error}")


def _check(request: GenerationRequest, info: EngineInfo) -> None:
    """Refuse what would fail a step, and with it everybody else's tokens of that step."""
    prompt, sampling = request.prompt_ids, request.sampling
    if not prompt:
        raise RequestError("The prompt is empty.", param="messages")
    if len(prompt) >= info.context_length:
        raise ContextLengthError(context_length=info.context_length, prompt_tokens=len(prompt))
    if min(prompt) < 0 or max(prompt) >= info.vocab_size:
        raise RequestError(f"A prompt token is not among the model's {info.vocab_size}.", param="messages")
    if sampling.max_tokens < 1:
        raise RequestError(f"max_tokens is {sampling.max_tokens}, but must be 1 or more.", param="max_tokens")
    if sampling.grammar is not None and not (info.takes_grammars and sampling.stop_token_ids):
        raise RequestError("This model cannot be held to a grammar.", param="grammar")
    _check_bias(sampling.logit_bias, info.vocab_size)


def _check_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    unknown = [token for token in bias if not 0 <= token < vocab_size]
    if unknown:
        raise RequestError(
            f"logit_bias names token {unknown[0]}, but the model has {vocab_size}.", param="logit_bias"
        )


def _sum(first: CoreCounters, second: CoreCounters) -> CoreCounters:
    return CoreCounters(
        first.cached_prompt_tokens + second.cached_prompt_tokens,
        first.prompt_tokens + second.prompt_tokens,
        first.generated_tokens + second.generated_tokens,
        second.kv_cache_usage,
    )
