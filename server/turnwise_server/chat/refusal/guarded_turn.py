"""Runs a turn behind its checks: nothing is shown that has not passed. It knows neither detectors nor HTTP.

Generation, the check of the question and the checks of the answer run at the same time. What has passed waits for the
question's verdict; what has not passed waits for its own; and the model goes on while they wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import structlog

from turnwise_server.chat.refusal.guarded_choice import ChoiceAudit, GuardedChoice, GuardedEvent
from turnwise_server.chat.refusal.hold_back import Check, HoldBackRule
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError, Verdict
from turnwise_server.chat.turn import TurnEvent
from turnwise_server.engine.timeline import Timeline
from turnwise_server.errors import QueueFullError
from turnwise_server.log import describe_exception

_log = structlog.get_logger()

Judge = Callable[[int, str, int], Awaitable[Verdict]]
"""Judges the window of choice (its index) that ends at an offset. It must depend on the window and the prompt alone."""


class Source(Protocol):
    """A reply being generated, as `chat.turn.Turn` is one."""

    @property
    def cached_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """When what happened to each choice."""
        ...

    def cancel(self) -> None:
        """Stop every choice. Never blocks; a no-op once finished."""
        ...

    def cancel_choice(self, index: int) -> None:
        """Stop one choice. Never blocks; a no-op once finished."""
        ...

    def __aiter__(self) -> AsyncIterator[TurnEvent]: ...


@dataclass(frozen=True, slots=True)
class Guard:
    """How the replies of one request are checked."""

    judge: Judge
    rule: HoldBackRule = field(default_factory=HoldBackRule)
    max_hold_s: float = 60.0
    """Seconds that text may wait for one verdict, if the judge has no deadline of its own; then it cannot be made."""
    on_error: Literal["closed", "open"] = "closed"
    """Whether text that cannot be checked ends the reply with an error or is shown."""
    regenerate: Callable[[int], Source] | None = None
    """Starts a choice again, as a reply of one choice; used once, where nothing of the choice was shown."""


@dataclass(slots=True)
class _Lane:
    """Where one choice stands."""

    index: int
    choice: GuardedChoice
    source: Source
    source_index: int
    """Which choice of its source it is."""
    given_up: GuardedChoice | None = None
    """The first attempt, if the choice was generated again."""
    has_ended: bool = False
    """Whether its source has no more events."""
    more: asyncio.Event = field(default_factory=asyncio.Event)


class GuardedTurn:
    """A reply being generated and checked: iterate it once for events, `cancel` it at any moment."""

    def __init__(
        self,
        source: Source,
        guard: Guard,
        *,
        choices: int = 1,
        input_verdict: Awaitable[Verdict] | None = None,
    ) -> None:
        """Guard a reply of `choices` choices; no event leaves before `input_verdict`, if there is one.

        To be called in a running event loop: the check of the input begins at once, if it has not yet begun.
        """
        self._guard = guard
        self._sources = [source]
        self._lanes = [_Lane(i, GuardedChoice(i, guard.rule), source, i) for i in range(choices)]
        self._input = None if input_verdict is None else asyncio.ensure_future(input_verdict)
        self._tasks: list[asyncio.Task[None]] = []
        self._out: asyncio.Queue[GuardedEvent | Exception | None] = asyncio.Queue()
        self.input_verdict = Verdict()
        """What came of the check of the input; set before the first event."""
        self.is_undecided = False
        """Whether the check of the input could not be made, so that nothing is shown."""

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt came from the prefix cache."""
        return max(source.cached_tokens for source in self._sources)

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated, those that nobody saw among them; none where the question was refused."""
        # How far the model came before the verdict is chance: the answer is not the model's.
        return 0 if self.input_verdict.stops else sum(source.completion_tokens for source in self._sources)

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """When what happened to each choice, and to those that were generated again."""
        return tuple(timeline for source in self._sources for timeline in source.timelines)

    @property
    def audits(self) -> tuple[ChoiceAudit, ...]:
        """What became of every attempt at every choice, whether the reply has ended or was left."""
        attempts = [(lane.given_up, lane.choice) for lane in self._lanes]
        return tuple(choice.audit for pair in attempts for choice in pair if choice is not None)

    def cancel(self) -> None:
        """Stop what is being generated and checked. Never blocks; a no-op once finished."""
        for source in self._sources:
            source.cancel()
        for task in self._tasks:
            task.cancel()
        if self._input is not None:
            self._input.cancel()

    async def __aiter__(self) -> AsyncIterator[GuardedEvent]:
        """Yield events until every choice is finished or blocked. Leaving the loop early cancels what still runs.

        Raises:
            ModerationUnavailableError: a check could not be made, and what it was to check may not be shown unchecked.
            EngineDeadError: the engine ended before the reply did.
        """
        try:
            self._begin()
            if self._input is not None:
                self.input_verdict = await self._verdict_on_input(self._input)
            if self.input_verdict.stops:
                for lane in self._lanes:
                    yield lane.choice.block("input", self.input_verdict)
                return
            async for event in self._released():
                yield event
        finally:
            self.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self) -> None:
        self._start(self._read(self._sources[0], self._lanes))
        for lane in self._lanes:
            self._start(self._check(lane))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _released(self) -> AsyncIterator[GuardedEvent]:
        """Events of all choices, in the order in which they may be shown."""
        unfinished = len(self._lanes)
        while unfinished:
            item = await self._out.get()
            if item is None:
                unfinished -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item

    async def _read(self, source: Source, lanes: Sequence[_Lane]) -> None:
        """Hand the events of a source to its choices, as long as they are its choices."""
        try:
            async for event in source:
                lane = lanes[event.index]
                if lane.source is source:
                    self._emit(lane.choice.feed(replace(event, index=lane.index)))
                    lane.more.set()
        except Exception as error:  # noqa: BLE001 - handed over to the consumer, who raises it
            self._out.put_nowait(error)
        for lane in lanes:
            if lane.source is source:
                lane.has_ended = True
                lane.more.set()

    async def _check(self, lane: _Lane) -> None:
        """Make the checks of one choice, one after the other, until it is over or breaks off."""
        try:
            while not lane.choice.is_over:
                check = lane.choice.due
                if check is not None:
                    await self._judge(lane, check)
                elif lane.has_ended:
                    break
                else:
                    lane.more.clear()
                    await lane.more.wait()
        except ModerationUnavailableError as error:
            lane.choice.break_off()
            self._out.put_nowait(error)
        finally:
            self._out.put_nowait(None)

    async def _judge(self, lane: _Lane, check: Check) -> None:
        choice = lane.choice
        verdict = await self._verdict(self._guard.judge(lane.index, check.window, check.offset))
        events = choice.judged(check, verdict)
        if verdict.stops:
            lane.source.cancel_choice(lane.source_index)
            if verdict.action == "regenerate" and not choice.has_sent and self._restart(lane):
                return
        self._emit(events)

    async def _verdict_on_input(self, check: Awaitable[Verdict]) -> Verdict:
        try:
            return await self._verdict(check)
        except ModerationUnavailableError:
            self.is_undecided = True
            raise

    async def _verdict(self, check: Awaitable[Verdict]) -> Verdict:
        try:
            async with asyncio.timeout(self._guard.max_hold_s):
                return await check
        except Exception as error:  # however a detector fails, its text is unchecked
            if not isinstance(error, ModerationUnavailableError):
                _log.error("check_failed", **describe_exception(error))
            if self._guard.on_error == "open":
                return Verdict(is_unchecked=True)
            raise ModerationUnavailableError("A check of the text could not be made.") from error

    def _restart(self, lane: _Lane) -> bool:
        """Generate a choice again, unless that was done already; return whether it is."""
        if self._guard.regenerate is None or lane.given_up is not None:
            return False
        try:
            source = self._guard.regenerate(lane.index)
        except QueueFullError:
            return False
        self._sources.append(source)
        lane.given_up, lane.choice = lane.choice, GuardedChoice(lane.index, self._guard.rule)
        lane.source, lane.source_index, lane.has_ended = source, 0, False
        self._start(self._read(source, [lane]))
        return True

    def _emit(self, events: Iterable[GuardedEvent]) -> None:
        for event in events:
            self._out.put_nowait(event)
