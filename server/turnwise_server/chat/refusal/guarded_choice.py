"""One choice behind its checks: events of the turn in, events that may be shown out. Pure: it makes no check itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnwise_server.chat.refusal.held_deltas import HeldDeltas
from turnwise_server.chat.refusal.hold_back import Check, HoldBack, HoldBackRule
from turnwise_server.chat.refusal.verdict import Action, Verdict
from turnwise_server.chat.turn import ChoiceFinished, TurnEvent

Stage = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Blocked:
    """The checks ended choice `index`: nothing more comes for it, and no `ChoiceFinished` either."""

    index: int
    stage: Stage
    category: str | None
    action: Action
    sent_chars: int = 0
    """Characters of content and arguments that were shown already. More than 0: the client must take them back."""
    held_chars: int = 0
    """Characters that were generated and never shown."""

    @property
    def finish_reason(self) -> Literal["stop", "content_filter"]:
        """What ends the choice on the wire: a refused question has a whole answer, a cut answer has not."""
        return "stop" if self.stage == "input" else "content_filter"


GuardedEvent = TurnEvent | Blocked


@dataclass(frozen=True, slots=True)
class ChoiceAudit:
    """What became of one attempt at a choice, at whatever moment it is asked for."""

    index: int
    text: str
    """All that was generated and read by a check, or waits for one."""
    scores: dict[str, float]
    """The highest score of each category over all checks."""
    verdict: Verdict
    """The strongest of all checks, the first of equals."""
    sent_chars: int
    held_chars: int
    checks: int
    is_unchecked: bool
    is_undecided: bool
    """Whether a check could not be made that had to be: the reply broke off there."""


class GuardedChoice:
    """Feed it the events of one choice and the verdicts on the checks that are `due`; it returns what may leave."""

    def __init__(self, index: int, rule: HoldBackRule) -> None:
        self._index = index
        self._hold = HoldBack(rule)
        self._deltas = HeldDeltas()
        self._finish: ChoiceFinished | None = None
        self._scores: dict[str, float] = {}
        self._checks = 0
        self._is_unchecked = False
        self._is_undecided = False
        self._verdict = Verdict()
        self.is_over = False
        """Whether nothing more comes: it is finished or blocked."""

    @property
    def due(self) -> Check | None:
        """The check to be made next, or None if there must be more text first."""
        return self._hold.due

    @property
    def has_sent(self) -> bool:
        """Whether any of it may have been shown."""
        return self._deltas.has_sent

    @property
    def audit(self) -> ChoiceAudit:
        """What became of it so far."""
        return ChoiceAudit(
            index=self._index,
            text=self._hold.text,
            scores=dict(self._scores),
            verdict=self._verdict,
            sent_chars=self._deltas.sent_chars,
            held_chars=self._deltas.held_chars,
            checks=self._checks,
            is_unchecked=self._is_unchecked,
            is_undecided=self._is_undecided,
        )

    def feed(self, event: TurnEvent) -> list[GuardedEvent]:
        """Take the next event of the turn. What comes after a block is dropped."""
        if self.is_over:
            return []
        if isinstance(event, ChoiceFinished):
            self._finish = event
            self._hold.end()
        else:
            self._hold.feed(self._deltas.add(event))
        return self._ready()

    def judged(self, check: Check, verdict: Verdict) -> list[GuardedEvent]:
        """Take the verdict on the check that was due."""
        self._checks += 1
        self._is_unchecked |= verdict.is_unchecked
        for category, score in verdict.scores.items():
            self._scores[category] = max(score, self._scores.get(category, 0.0))
        if verdict.strength > self._verdict.strength:
            self._verdict = verdict
        if verdict.stops:
            return [self.block("output", verdict)]
        self._hold.passed(check)
        return self._ready()

    def break_off(self) -> None:
        """Note that the check that was due could not be made: the reply ends with an error."""
        self._is_undecided = True

    def block(self, stage: Stage, verdict: Verdict) -> Blocked:
        """End the choice here; nothing that was held will be shown. On `input`, nothing of it was shown yet."""
        if stage == "input":
            self._deltas.recall()
        self._hold.block()
        self.is_over = True
        return Blocked(
            self._index,
            stage,
            verdict.category,
            verdict.action,
            sent_chars=self._deltas.sent_chars,
            held_chars=self._deltas.held_chars,
        )

    def _ready(self) -> list[GuardedEvent]:
        hold = self._hold
        events: list[GuardedEvent] = [*self._deltas.take(hold.released, is_all=hold.is_open)]
        if self._finish is not None and hold.is_complete:
            events.append(self._finish)
            self.is_over = True
        return events
