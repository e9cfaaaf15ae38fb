"""What a record says, and that the documentation tells it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import get_args

from support.audits import decision, write_audit
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.moderation.audit.record import AuditRecord, DetectorRun, OverrideUse
from turnwise_server.moderation.audit.verify import verify

DOCUMENT = (Path(__file__).parents[4] / "docs" / "audit.md").read_text()


def test_every_key_of_a_record_is_documented() -> None:
    keys = {field.name for field in fields(AuditRecord)} | {
        "kind",
        "top",
        "text_sha256",
        "seq",
        "prev",
        "hash",
    }
    rows = DOCUMENT.partition("## A record")[2].partition("## ")[0]
    documented = {
        name
        for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == keys


def test_every_stage_is_documented() -> None:
    row = re.search(r"^\| `stage` \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert row is not None
    assert tuple(re.findall(r"`(\w+)`", row[1])) == get_args(Stage)


def test_the_documented_command_computes_the_hash(tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.jsonl", 3)
    command = re.search(r"^tail .*", DOCUMENT, re.MULTILINE)
    assert command is not None
    shown = subprocess.run(command[0], shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    last = verify(tmp_path / "audit.jsonl").last
    assert last is not None
    assert shown.stdout.split()[0] == last.hash


def test_what_does_not_apply_is_left_out() -> None:
    entry = decision().entry(with_text=True)
    assert None not in entry.values()
    assert {"text", "text_sha256", "override", "turn"}.isdisjoint(entry)


def test_the_highest_score_is_named() -> None:
    assert decision().entry(with_text=False)["top"] == {"category": "weapons", "score": 0.9}


def test_detectors_and_overrides_are_objects() -> None:
    record = AuditRecord(
        stage="input",
        action="allow",
        policy_sha256="",
        request_id="",
        detectors=(DetectorRun("starter", None, 1.5),),
        override=OverrideUse("safety:override", "a study"),
    )
    entry = record.entry(with_text=False)
    assert entry["detectors"] == ({"id": "starter", "sha256": None, "ms": 1.5},)
    assert entry["override"] == {"scope": "safety:override", "reason": "a study"}
