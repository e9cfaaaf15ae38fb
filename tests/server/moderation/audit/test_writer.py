"""How the chain's files are written, repaired, put away and deleted."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.audits import RULES, entry, write_audit
from turnwise_server.errors import ConfigurationError
from turnwise_server.moderation.audit.files import old_files
from turnwise_server.moderation.audit.record import Entry
from turnwise_server.moderation.audit.verify import verify
from turnwise_server.moderation.audit.writer import ChainWriter

KEPT_30_DAYS = RULES.model_copy(update={"content": "full", "retention_days": 30})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def entries(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def pass_days(self, days: float) -> None:
        self.moment += timedelta(days=days)

    def entry(self, number: int) -> Entry:
        return entry(number, "said") | {"ts": self.moment.isoformat()}


def test_a_chain_goes_on_when_its_file_is_opened_again(path: Path) -> None:
    write_audit(path, 2)
    write_audit(path, 2, first=2)
    report = verify(path)
    assert (report.fault, report.records, report.repairs) == (None, 4, 0)


def test_a_file_that_is_no_audit_is_left_as_it_is(path: Path) -> None:
    path.write_text("the notes of somebody\n")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="move all its files elsewhere"):
        ChainWriter(path)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("the notes of somebody\n", 0o644)


def test_only_the_user_can_read_the_files(path: Path) -> None:
    path.touch(0o644)
    write_audit(path, 1)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_second_writer_is_refused_and_told_what_to_do(path: Path) -> None:
    writer = ChainWriter(path)
    with pytest.raises(ConfigurationError, match=r"another process.*audit\.path"):
        ChainWriter(path)
    writer.close()
    ChainWriter(path).close()


def test_a_directory_that_cannot_be_written_is_refused(path: Path) -> None:
    path.write_text("a file where a directory is needed")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        ChainWriter(path / "audit.jsonl")


@pytest.mark.parametrize("content", ["a letter", "a letter\n", '{"seq":1}\n'])
def test_a_file_that_is_no_audit_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="audit verify"):
        ChainWriter(path)
    assert path.read_text() == content


@pytest.mark.parametrize("whole", [0, 3])
@pytest.mark.parametrize("torn", [b"{", b'{"action":"re', b"{" + b"x" * 10_000, b"\0" * 50])
def test_a_torn_line_is_replaced_by_a_record_of_it(path: Path, whole: int, torn: bytes) -> None:
    write_audit(path, whole)
    with path.open("ab") as file:
        file.write(torn)
    write_audit(path, 1)
    report = verify(path)
    assert (report.fault, report.records, report.repairs) == (None, whole + 2, 1)
    repair = entries(path)[whole]
    assert (repair["problem"], repair["bytes"]) == ("torn", len(torn))
    assert str(repair["quoted"]).encode() == torn[:4096]


def test_what_a_killed_process_wrote_is_whole_and_goes_on(path: Path) -> None:
    code = (
        "import sys, itertools; from pathlib import Path; from support.audits import entry\n"
        "from turnwise_server.moderation.audit.writer import ChainWriter\n"
        "writer = ChainWriter(Path(sys.argv[1]))\n"
        "for number in itertools.count():\n"
        "    writer.write(entry(number) for _ in range(50))\n"
        "    print(flush=True)\n"
    )
    support = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": support},
    ) as process:
        assert process.stdout is not None
        batches = 0
        while batches < 5:
            batches += process.stdout.readline() == b"\n"
        process.send_signal(signal.SIGKILL)
    write_audit(path, 1)
    report = verify(path)
    assert report.fault is None
    assert report.records >= 5 * 50 + 1


def test_a_full_file_is_put_away_and_the_chain_goes_on_in_a_new_one(path: Path) -> None:
    writer = ChainWriter(path)
    for number in range(3):
        writer.rotate(RULES.model_copy(update={"rotate_mb": 1}))
        writer.write([entry(number, "x" * 2**20)])
    writer.close()
    assert [file.last_seq for file in old_files(path)] == [1, 2]
    report = verify(path)
    assert (report.fault, report.files, report.records) == (None, 3, 3)


def test_a_chain_goes_on_where_the_process_ended_between_putting_away_and_beginning_anew(path: Path) -> None:
    clock = Clock()
    writer = ChainWriter(path, clock)
    writer.write([clock.entry(0)])
    clock.pass_days(1)
    writer.rotate(KEPT_30_DAYS)
    writer.close()
    path.unlink()
    write_audit(path, 1)
    report = verify(path)
    assert (report.fault, report.files, report.records) == (None, 2, 2)


def test_files_without_a_time_to_keep_them_stay(path: Path) -> None:
    clock = Clock()
    writer = ChainWriter(path, clock)
    writer.write([clock.entry(0)])
    clock.pass_days(10_000)
    writer.rotate(RULES)
    writer.expire(RULES)
    writer.close()
    assert (verify(path).files, verify(path).records) == (1, 1)


def test_texts_go_after_their_time_and_the_chain_says_so(path: Path) -> None:
    clock = Clock()
    writer = ChainWriter(path, clock)
    for day in range(60):
        writer.rotate(KEPT_30_DAYS)
        writer.write([clock.entry(day)])
        writer.expire(KEPT_30_DAYS)
        clock.pass_days(1)
    writer.close()
    files = [file.path for file in old_files(path)]
    texts = [record for file in (*files, path) for record in entries(file) if "text" in record]
    oldest = min(datetime.fromisoformat(str(record["ts"])) for record in texts)
    assert timedelta(days=30) <= clock.moment - oldest <= timedelta(days=32)
    report = verify(path)
    assert report.fault is None
    assert report.deleted > 0
    files[0].unlink()
    assert verify(path).fault is not None


def test_a_deletion_that_was_interrupted_breaks_nothing(path: Path) -> None:
    clock = Clock()
    writer = ChainWriter(path, clock)
    for day in range(4):
        writer.rotate(KEPT_30_DAYS)
        writer.write([clock.entry(day)])
        clock.pass_days(1)
    kept = old_files(path)[-1].path
    content = kept.read_bytes()
    clock.pass_days(30)
    writer.expire(KEPT_30_DAYS)
    writer.close()
    assert not kept.exists()
    kept.write_bytes(content)
    report = verify(path)
    assert (report.fault and report.fault.reason, report.deleted) == (None, 2)


def test_a_damaged_file_is_deleted_after_its_time_too_but_the_chain_counts_as_broken(path: Path) -> None:
    clock = Clock()
    writer = ChainWriter(path, clock)
    writer.write([clock.entry(0)])
    clock.pass_days(2)
    writer.rotate(KEPT_30_DAYS)
    writer.write([clock.entry(1)])
    damaged = old_files(path)[0].path
    damaged.write_bytes(b"")
    clock.pass_days(31)
    writer.expire(KEPT_30_DAYS)
    writer.close()
    assert not damaged.exists()
    fault = verify(path).fault
    assert fault is not None
    assert fault.kind == "missing"


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(Path.unlink, id="deleted"),
        pytest.param(lambda path: path.rename(path.with_name("elsewhere")), id="moved"),
        pytest.param(lambda path: os.truncate(path, 0), id="emptied"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size - 9), id="cut"),
    ],
)
def test_a_file_that_goes_while_it_is_written_is_begun_anew_and_the_gap_is_found(
    path: Path, harm: Callable[[Path], object]
) -> None:
    writer = ChainWriter(path)
    writer.write([entry(0), entry(1)])
    harm(path)
    writer.write([entry(2)])
    writer.close()
    assert "replaced" in {record.get("problem") for record in entries(path)}
    assert entries(path)[-1]["request_id"] == "req_2"
    fault = verify(path).fault
    assert fault is not None
    assert fault.kind == "missing"


def test_after_a_failed_sync_the_same_records_are_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    writer = ChainWriter(path)
    writer.write([entry(0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input"):
            writer.write([entry(1)])
    assert verify(path).records == 1
    writer.write([entry(1)])
    writer.close()
    report = verify(path)
    assert (report.fault, report.records) == (None, 2)
