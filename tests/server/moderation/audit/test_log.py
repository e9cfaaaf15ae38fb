"""The audit as the server uses it: it never waits, loses nothing silently, and says when it cannot write."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from support.audits import RULES, decision, entry
from turnwise_server.chat.refusal.verdict import ModerationUnavailableError
from turnwise_server.moderation.audit import log as log_module
from turnwise_server.moderation.audit.files import old_files
from turnwise_server.moderation.audit.log import AuditLog
from turnwise_server.moderation.audit.record import Entry
from turnwise_server.moderation.audit.verify import verify
from turnwise_server.moderation.audit.writer import ChainWriter

OPEN = RULES.model_copy(update={"on_error": "open"})
FULL_TEXTS = RULES.model_copy(update={"content": "full", "retention_days": 30})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    log = AuditLog(path, RULES)
    yield log
    log.close()


class Disk:
    """A disk that may be full, or slow; it counts its syncs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.syncs = 0
        self.is_free = threading.Event()
        self.is_free.set()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)
        monkeypatch.setattr(log_module, "RETRY_S", 0.01)

    def sync(self, file: int) -> None:
        self.is_free.wait(10)
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.syncs += 1
        self._fsync(file)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def entries(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def recovered(disk: Disk, log: AuditLog) -> None:
    """Make room on the disk, and wait until it is used."""
    disk.is_full = False
    async with asyncio.timeout(10):
        while not log.is_writable:  # noqa: ASYNC110 - it is a thread that changes it
            await asyncio.sleep(0.01)
    await log.flush()


async def test_what_was_flushed_is_in_the_file(path: Path, log: AuditLog) -> None:
    log.append(decision(1))
    await log.flush()
    assert entries(path)[0]["request_id"] == "req_1"


async def test_a_flush_without_records_ends_at_once(log: AuditLog) -> None:
    await log.flush()


def test_closing_writes_what_waits(path: Path) -> None:
    log = AuditLog(path, RULES)
    for number in range(2_500):
        log.append(decision(number))
    log.close()
    report = verify(path)
    assert (report.fault, report.records) == (None, 2_500)
    assert [record["request_id"] for record in entries(path)] == [f"req_{number}" for number in range(2_500)]


async def test_many_records_share_one_sync_and_taking_them_waits_for_none(
    path: Path, disk: Disk, log: AuditLog
) -> None:
    log.append(decision(0))
    await log.flush()
    before = disk.syncs
    disk.is_free.clear()
    for number in range(500):
        log.append(decision(number))
    flushed = asyncio.ensure_future(log.flush())
    await asyncio.sleep(0)
    assert not flushed.done()
    disk.is_free.set()
    await flushed
    assert disk.syncs - before <= 2
    assert verify(path).records == 501


async def test_a_flush_can_be_given_up(path: Path, disk: Disk, log: AuditLog) -> None:
    disk.is_free.clear()
    log.append(decision(0))
    given_up = asyncio.ensure_future(log.flush())
    await asyncio.sleep(0)
    given_up.cancel()
    disk.is_free.set()
    await log.flush()
    assert verify(path).records == 1


async def test_texts_are_written_only_where_the_rules_say_so(path: Path, log: AuditLog) -> None:
    log.append(decision(0, text="What do you think?\ud800"))
    await log.flush()
    log.follow(FULL_TEXTS)
    log.append(decision(1, text="What do you think?\ud800"))
    await log.flush()
    hashed, whole = entries(path)
    assert hashed["text_sha256"] == whole["text_sha256"]
    assert "text" not in hashed
    assert whole["text"] == "What do you think?\ud800"


async def test_a_full_disk_refuses_work_until_it_has_room_again_and_nothing_is_lost(
    path: Path, disk: Disk, log: AuditLog
) -> None:
    log.require_writable()
    disk.is_full = True
    with capture_logs() as logged:
        log.append(decision(0))
        with pytest.raises(ModerationUnavailableError):
            await log.flush()
        with pytest.raises(ModerationUnavailableError):
            log.require_writable()
        log.append(decision(1))
        await recovered(disk, log)
    log.require_writable()
    assert [each["event"] for each in logged] == ["audit_failed", "audit_recovered"]
    assert [record["request_id"] for record in entries(path)] == ["req_0", "req_1"]
    assert (verify(path).fault, log.lost) == (None, 0)


async def test_an_audit_whose_directory_is_deleted_refuses_work_until_there_is_one_again(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "data" / "audit.jsonl"
    log = AuditLog(path, RULES)
    shutil.rmtree(path.parent)
    log.append(decision(0))
    with pytest.raises(ModerationUnavailableError):
        await log.flush()
    path.parent.mkdir()
    await recovered(disk, log)
    log.close()
    assert [record.get("request_id") for record in entries(path)] == [None, "req_0"]


def test_a_file_size_limit_is_survived(path: Path) -> None:
    code = (
        "import asyncio, resource, sys; from pathlib import Path\n"
        "from support.audits import RULES, decision\n"
        "from turnwise_server.chat.refusal.verdict import ModerationUnavailableError\n"
        "from turnwise_server.moderation.audit import log as log_module\n"
        "log_module.RETRY_S = 0.05\n"
        "async def main():\n"
        "    log = log_module.AuditLog(Path(sys.argv[1]), RULES)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    for number in range(100):\n"
        "        log.append(decision(number))\n"
        "    try:\n"
        "        await log.flush()\n"
        "    except ModerationUnavailableError:\n"
        "        print('refused')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    log.close()\n"
        "asyncio.run(main())\n"
    )
    tests = str(Path(__file__).parents[3])
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert "refused" in ended.stdout
    report = verify(path)
    assert (report.fault, report.records) == (None, 100)


async def test_files_whose_time_is_over_go_when_the_audit_is_opened(path: Path) -> None:
    writer = ChainWriter(path, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    writer.write([entry(0, "said") | {"ts": "2026-01-01T00:00:00.000Z"}])
    writer.close()
    log = AuditLog(path, FULL_TEXTS)
    log.append(decision(1))
    await log.flush()
    log.close()
    assert old_files(path) == []
    assert [record["kind"] for record in entries(path)] == ["deletion", "decision"]
    report = verify(path)
    assert (report.fault, report.deleted) == (None, 1)


async def test_an_open_audit_lets_work_go_on_over_a_full_disk_and_counts_what_is_lost(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 3)
    log = AuditLog(path, OPEN)
    disk.is_full = True
    log.append(decision(0))
    await log.flush()
    log.require_writable()
    assert not log.is_writable
    for number in range(1, 10):
        log.append(decision(number))
    assert log.lost == 7
    await recovered(disk, log)
    log.close()
    report = verify(path)
    assert (report.fault, report.records, report.lost) == (None, 4, 7)
    assert entries(path)[-1]["kind"] == "loss"


async def test_texts_that_wait_are_bounded_by_their_length_too(
    disk: Disk, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING_CHARS", 1_000)
    disk.is_full = True
    for number in range(3):
        log.append(decision(number, text="x" * 600))
    assert log.lost == 1
    await recovered(disk, log)
    log.require_writable()


def test_closing_over_a_full_disk_says_what_is_lost(path: Path, disk: Disk) -> None:
    log = AuditLog(path, OPEN)
    disk.is_full = True
    log.append(decision(0))
    with capture_logs() as logged:
        log.close()
    assert logged[-1] == {"event": "audit_incomplete", "log_level": "error", "records": 1}


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_where_it_is_made(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        type(decision())(
            stage="input", action="allow", policy_sha256="", request_id="", scores={"weapons": score}
        )
