"""Opens the audit that a policy asks for, beside those of other servers of the same user."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from turnwise_server.chat.refusal.policy_stages import Audit
from turnwise_server.moderation.audit.files import audit_path
from turnwise_server.moderation.audit.log import AuditLog
from turnwise_server.moderation.audit.writer import AuditInUseError

MAX_SERVERS: Final = 64
"""Most servers that keep audits of one name in one data directory."""


def open_audit(rules: Audit) -> AuditLog:
    """Return the audit at `rules.path`.

    A relative path is no promise about one file: where another server writes `audit.jsonl` in the data directory, this
    one writes `audit.2.jsonl`, a chain of its own. A whole path is taken as it is.

    Raises:
        ConfigurationError: it cannot be written, or another process writes it.
    """
    path = audit_path(rules.path)
    if Path(rules.path).expanduser().is_absolute():
        return AuditLog(path, rules)
    for number in range(2, MAX_SERVERS + 1):
        try:
            return AuditLog(path, rules)
        except AuditInUseError:
            path = audit_path(rules.path)
            path = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return AuditLog(path, rules)
