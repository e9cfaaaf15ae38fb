"""Audit records and files for tests."""

from __future__ import annotations

from pathlib import Path

from turnwise_server.chat.refusal.policy_stages import Audit
from turnwise_server.moderation.audit.record import AuditRecord, Entry
from turnwise_server.moderation.audit.writer import ChainWriter

RULES = Audit()


def decision(number: int = 0, text: str | None = None) -> AuditRecord:
    """Return a decision; `number` tells it from others."""
    return AuditRecord(
        stage="input",
        action="refuse",
        policy_sha256="5" * 64,
        request_id=f"req_{number}",
        category="weapons",
        scores={"weapons": 0.9, "violence": 0.25},
        text=text,
    )


def entry(number: int = 0, text: str | None = None) -> Entry:
    """Return a decision as its writer takes it."""
    return decision(number, text).entry(with_text=True)


def write_audit(path: Path, records: int, *, first: int = 0) -> None:
    """Append decisions to an audit, and close it."""
    writer = ChainWriter(path)
    writer.write(entry(number) for number in range(first, first + records))
    writer.close()
