"""An engine without a model: scripted tokens and delays, deterministic, in-process. It knows nothing of text.

Grammars are taken and ignored: what it says is in the script, whether a grammar allows it or not.

It keeps the promises of `engine.base.Engine` (slots, a bounded queue, cancellation, death), so the layers above
are tested against it, and client developers can serve it with `turnwise-server --engine fake`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence

from turnwise_server.engine.base import (
    EngineInfo,
    EngineStats,
    FinishReason,
    GenerationRequest,
    TokenEvent,
    TokenLogprobs,
)
from turnwise_server.engine.timeline import Timeline
from turnwise_server.engine.waiting_room import WaitingRoom
from turnwise_server.errors import EngineDeadError

Script = Callable[[GenerationRequest], Sequence[int]]


class FakeGeneration:
    """A scripted sequence; what `FakeEngine.submit` returns."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.timeline = Timeline()
        self.task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[TokenEvent | EngineDeadError | None] = asyncio.Queue()
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[TokenEvent]:
        return self

    async def __anext__(self) -> TokenEvent:
        if self._is_over:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, TokenEvent) and not self._is_over:
            self._is_over = event.finish_reason is not None
            return event
        self._is_over = True
        if isinstance(event, EngineDeadError):
            raise event
        raise StopAsyncIteration

    def put(self, event: TokenEvent | EngineDeadError) -> None:
        """Hand the reader its next event."""
        if isinstance(event, TokenEvent):
            self.timeline.mark_token()
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Stop generating; a reader that waits sees the end of the iteration."""
        if self.task is not None:
            self.task.cancel()
        self._is_over = True
        self._events.put_nowait(None)


class FakeEngine:
    """Generates what `script` says: token ids per request, or a list of replies handed out in order, for ever.

    A reply ends with the first id of `stop_token_ids` unless `max_tokens` cut it before. `running`, `waiting`,
    `cancelled`, `finished` and `requests` let a test assert what became of its requests.
    """

    def __init__(
        self,
        script: Script | Sequence[Sequence[int]],
        *,
        vocab_size: int,
        stop_token_ids: frozenset[int],
        context_length: int = 4096,
        token_delay_s: float = 0.0,
        prefill_delay_s: float = 0.0,
        max_batch: int = 32,
        max_queued_requests: int = 64,
    ) -> None:
        self._script = script if callable(script) else in_order(script)
        self._info = EngineInfo(
            context_length=context_length,
            vocab_size=vocab_size,
            fingerprint="fake",
            dtype="none",
            device="none",
            stop_token_ids=stop_token_ids,
            takes_grammars=True,
        )
        self._token_delay_s = token_delay_s
        self._prefill_delay_s = prefill_delay_s
        self._max_batch = max_batch
        self._room = WaitingRoom(max_queued_requests, max_tokens=None)
        self._slots = asyncio.Semaphore(max_batch)
        self._waiting: set[FakeGeneration] = set()
        self._running: set[FakeGeneration] = set()
        self._is_alive = False
        self._last_step = time.monotonic()
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self.requests: list[GenerationRequest] = []
        self.cancelled = 0
        self.finished = 0

    @property
    def running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._waiting)

    async def start(self) -> EngineInfo:
        """Begin to accept requests."""
        self._is_alive = True
        return self._info

    def submit(self, request: GenerationRequest) -> FakeGeneration:
        """Queue a scripted sequence; see `Engine.submit`."""
        self._require_room(request.tenant, len(request.prompt_ids))
        self.requests.append(request)
        generation = FakeGeneration(request)
        if not self._running and not self._waiting:
            self._last_step = time.monotonic()
        self._waiting.add(generation)
        self._room.enter(request.tenant, len(request.prompt_ids))
        generation.task = asyncio.create_task(self._generate(generation))
        generation.task.add_done_callback(lambda task: self._forget(generation, task))
        return generation

    def require_room(self, tenant: str) -> None:
        """Refuse where `submit` would; see `Engine`."""
        self._require_room(tenant, 1)

    def stats(self) -> EngineStats:
        """Return the counters; see `Engine.stats`."""
        return EngineStats(
            is_alive=self._is_alive,
            running=self.running,
            waiting=self.waiting,
            seconds_since_step=time.monotonic() - self._last_step,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
        )

    async def close(self) -> None:
        """End every sequence with EngineDeadError and accept no more."""
        self.die()
        await asyncio.sleep(0)

    def die(self) -> None:
        """Behave as if the engine process had been killed: every sequence fails and `submit` refuses."""
        self._is_alive = False
        for generation in self._waiting | self._running:
            generation.put(EngineDeadError("the engine has ended"))
            if generation.task is not None:
                generation.task.cancel()

    def stall(self, seconds: float) -> None:
        """Behave as if no step had finished for that long."""
        self._last_step = time.monotonic() - seconds

    def _require_room(self, tenant: str, tokens: int) -> None:
        if not self._is_alive:
            raise EngineDeadError("the engine is not running")
        free = self._max_batch - self.running
        self._room.check(tenant, tokens, free=free, context_length=self._info.context_length)

    async def _generate(self, generation: FakeGeneration) -> None:
        async with self._slots:
            self._stop_waiting(generation)
            self._running.add(generation)
            generation.timeline.mark_start()
            request = generation.request
            self._prompt_tokens += len(request.prompt_ids)
            await asyncio.sleep(self._prefill_delay_s)
            stop_ids = request.sampling.stop_token_ids or self._info.stop_token_ids
            room = min(request.sampling.max_tokens, self._info.context_length - len(request.prompt_ids))
            for position, token_id in enumerate((*self._script(request), min(stop_ids))):
                await asyncio.sleep(self._token_delay_s)
                reason = _finish_reason(token_id, position + 1, stop_ids, room)
                generation.put(TokenEvent(token_id, reason, self._logprobs(request, token_id, position)))
                self._generated_tokens += 1
                self._last_step = time.monotonic()
                if reason is not None:
                    return

    def _logprobs(self, request: GenerationRequest, token_id: int, position: int) -> TokenLogprobs | None:
        count = request.sampling.top_logprobs
        if count is None:
            return None
        first = -0.125 * (1 + position % 4)
        ids = [(token_id + step) % self._info.vocab_size for step in range(count)]
        return TokenLogprobs(first, tuple((top_id, first - step) for step, top_id in enumerate(ids)))

    def _stop_waiting(self, generation: FakeGeneration) -> None:
        if generation in self._waiting:
            self._waiting.remove(generation)
            self._room.leave(generation.request.tenant, len(generation.request.prompt_ids))

    def _forget(self, generation: FakeGeneration, task: asyncio.Task[None]) -> None:
        self._stop_waiting(generation)
        self._running.discard(generation)
        if task.cancelled():
            self.cancelled += 1
        else:
            task.result()
            self.finished += 1


def in_order(replies: Sequence[Sequence[int]]) -> Script:
    """Hand out the replies one after another, then again from the first."""
    if not replies:
        raise ValueError("a fake engine needs at least one reply")
    endless = itertools.cycle(replies)
    return lambda _: next(endless)


def _finish_reason(
    token_id: int, generated: int, stop_token_ids: frozenset[int], room: int
) -> FinishReason | None:
    if token_id in stop_token_ids:
        return FinishReason.STOP
    return FinishReason.LENGTH if generated >= room else None
