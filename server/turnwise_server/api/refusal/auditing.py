"""What is recorded of a guarded reply once it has ended, however it ended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from turnwise_server.api.refusal.guarding import GuardedReply
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Verdict
from turnwise_server.moderation.audit.record import AuditRecord, DetectorRun, user_digest
from turnwise_server.moderation.panel import Asked
from turnwise_server.moderation.readings import Reading


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose reply it is."""

    request_id: str
    reply_id: str
    model: str
    key_id: str
    user: str
    """The client's `safety_identifier` or `user`; "" if it sent none."""


def audit_records(guarded: GuardedReply, origin: Origin) -> Iterator[AuditRecord]:
    """Yield a record of the verdict on what the client sent, if there was one, and one for each attempt at a choice.

    What the model said behind a question that was refused or could not be checked is not recorded: it concerns nobody.
    """
    guard, turn = guarded.guard, guarded.turn
    if guard.input_reading is not None:
        record = _record(
            guarded, origin, "input", turn.input_verdict, guard.input_reading, guard.asked["input"]
        )
        place = turn.input_verdict.place
        yield replace(
            record,
            action="unavailable" if turn.is_undecided else record.action,
            text=guard.question,
            unchecked=turn.input_verdict.is_unchecked or turn.is_undecided,
            turn=place.turn if place else None,
            latency_ms=round(guard.input_ms, 1),
        )
    if turn.input_verdict.stops or turn.is_undecided:
        return
    for audit in turn.audits:
        if not (audit.checks or audit.is_undecided):
            continue
        reading = guard.output_readings.get(audit.index, Reading())
        record = _record(guarded, origin, "output", audit.verdict, reading, guard.asked["output"])
        yield replace(
            record,
            action="unavailable" if audit.is_undecided else record.action,
            scores=audit.scores,
            text=audit.text,
            unchecked=audit.is_unchecked or audit.is_undecided,
            choice=audit.index,
            partial=audit.verdict.stops and audit.sent_chars > 0,
            sent_chars=audit.sent_chars,
            held_chars=audit.held_chars,
        )


def _record(
    guarded: GuardedReply,
    origin: Origin,
    stage: Stage,
    verdict: Verdict,
    reading: Reading,
    asked: Sequence[Asked],
) -> AuditRecord:
    """Return what a record of either stage says."""
    place = verdict.place
    shadow = {
        detector: {name: each.score for name, each in found.items()}
        for detector, found in reading.shadow.items()
    }
    return AuditRecord(
        stage=stage,
        action=verdict.action,
        category=verdict.category,
        policy_sha256=guarded.guard.layer.loaded.sha256,
        request_id=origin.request_id,
        reply_id=origin.reply_id,
        model=origin.model,
        key_id=origin.key_id or None,
        user=user_digest(origin.user) if origin.user else None,
        lang=guarded.manner.language,
        scores={name: each.score for name, each in reading.categories.items()},
        shadow=shadow or None,
        detectors=_runs(asked),
        variant=place.form if place else None,
        window=(place.start, place.end) if place else None,
        wire=guarded.manner.style if verdict.stops else "none",
        override=guarded.override if verdict.is_overridden else None,
    )


def _runs(asked: Sequence[Asked]) -> tuple[DetectorRun, ...]:
    """Return each detector once, with the time that it took altogether."""
    runs: dict[str, DetectorRun] = {}
    for each in asked:
        before = runs[each.detector].ms if each.detector in runs else 0.0
        runs[each.detector] = DetectorRun(each.detector, each.sha256, round(before + each.ms, 1))
    return tuple(runs.values())
