"""What the audit says of one decision, and what it says of itself. It knows neither files nor chains."""

from __future__ import annotations

import hashlib
import math
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.verdict import Action

Outcome: TypeAlias = Action | Literal["unavailable"]
"""What was done; `unavailable`: what had to be checked could not be, and the client got an error."""
Wire: TypeAlias = Literal["content", "field", "both", "none"]
Kind: TypeAlias = Literal["decision", "repair", "deletion", "loss"]
Entry: TypeAlias = dict[str, object]
"""A record as JSON, before it takes its place in the chain."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Return a moment as the audit writes it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def user_digest(user: str) -> str:
    """Return what stands for the client's `safety_identifier` or `user` in the audit."""
    return _sha256(user)


def note(kind: Kind, moment: datetime, **facts: object) -> Entry:
    """Return a record that the audit makes of itself."""
    return {"kind": kind, "id": _new_id(), "ts": timestamp(moment), **facts}


@dataclass(frozen=True, slots=True)
class DetectorRun:
    """A detector that took part in a decision."""

    id: str
    sha256: str | None
    """The digest of its weights."""
    ms: float
    """How long it took."""


@dataclass(frozen=True, slots=True)
class OverrideUse:
    """By what right a request was answered that would have been stopped."""

    scope: str
    reason: str | None


def _new_id() -> str:
    return f"audit_{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision. What is None is left out of the file."""

    stage: Stage
    action: Outcome
    policy_sha256: str
    request_id: str
    category: str | None = None
    """The category of the policy that asked for the action."""
    scores: dict[str, float] = field(default_factory=dict)
    """By category, 0..1."""
    shadow: dict[str, dict[str, float]] | None = None
    """What detectors scored that decide nothing: by their id, by category."""
    detectors: tuple[DetectorRun, ...] = ()
    unchecked: bool = False
    """Whether a check was left out that could not be made."""
    variant: str | None = None
    """Which form of the text had the highest score."""
    window: tuple[int, int] | None = None
    """Where in that form, in characters: from, to."""
    turn: int | None = None
    """Index of the client's message; of a reply, none."""
    choice: int | None = None
    """Index of the reply's choice; of a request, none."""
    wire: Wire = "none"
    """Where the client was shown a refusal."""
    partial: bool = False
    """Whether some of the reply was shown before it was stopped."""
    sent_chars: int | None = None
    held_chars: int | None = None
    override: OverrideUse | None = None
    text: str | None = None
    """What was judged; its digest is written, the text itself only with `audit.content: full`."""
    key_id: str | None = None
    user: str | None = None
    """See `user_digest`."""
    reply_id: str | None = None
    """The id of the reply that the client got, which votes name, too."""
    model: str | None = None
    lang: str | None = None
    """The first language that the client accepts."""
    latency_ms: float | None = None
    """How long the decision took."""
    id: str = field(default_factory=_new_id)
    ts: str = field(default_factory=lambda: timestamp(utc_now()))

    def __post_init__(self) -> None:
        """Hold every score to a number, since JSON has no other.

        Raises:
            ValueError: a score is infinite or no number.
        """
        for scores in (self.scores, *(self.shadow or {}).values()):
            if not all(map(math.isfinite, scores.values())):
                raise ValueError("scores must be finite")

    def entry(self, *, with_text: bool) -> Entry:
        """Return the record as JSON, with the judged text or with its digest only."""
        entry: Entry = {name: value for name, value in asdict(self).items() if value is not None}
        entry["kind"] = "decision"
        if self.scores:
            category, score = max(self.scores.items(), key=lambda item: item[1])
            entry["top"] = {"category": category, "score": score}
        if self.text is not None:
            entry["text_sha256"] = _sha256(self.text)
            if not with_text:
                del entry["text"]
        return entry


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
