"""What the check of a chain finds, and what it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from support.audits import RULES, entry, write_audit
from turnwise_server.cli import app
from turnwise_server.moderation.audit.chain import GENESIS, Link, seal
from turnwise_server.moderation.audit.files import old_files
from turnwise_server.moderation.audit.verify import verify
from turnwise_server.moderation.audit.writer import ChainWriter

LINES = seal((entry(number) for number in range(6)), Link(0, GENESIS))[0].splitlines(keepends=True)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@given(place=st.integers(0, sum(map(len, LINES)) - 1), change=st.integers(1, 255))
def test_any_changed_byte_is_found(broken: Path, place: int, change: int) -> None:
    data = bytearray(b"".join(LINES))
    data[place] ^= change
    broken.write_bytes(data)
    fault = verify(broken).fault
    assert fault is not None
    assert fault.line == bytes(b"".join(LINES)[:place]).count(b"\n") + 1


@given(first=st.integers(0, len(LINES) - 2), most=st.integers(1, len(LINES)))
def test_any_deleted_lines_but_the_last_are_found(broken: Path, first: int, most: int) -> None:
    past = min(first + most, len(LINES) - 1)
    broken.write_bytes(b"".join(LINES[:first] + LINES[past:]))
    fault = verify(broken).fault
    assert fault is not None
    assert (fault.kind, fault.line) == ("missing", first + 1)


@given(pair=st.sets(st.integers(0, len(LINES) - 1), min_size=2, max_size=2))
def test_any_two_swapped_lines_are_found(broken: Path, pair: set[int]) -> None:
    low, high = sorted(pair)
    lines = [*LINES]
    lines[low], lines[high] = lines[high], lines[low]
    broken.write_bytes(b"".join(lines))
    assert verify(broken).fault is not None


@given(which=st.integers(0, len(LINES) - 1), place=st.integers(0, len(LINES)))
def test_any_repeated_line_is_found(broken: Path, which: int, place: int) -> None:
    broken.write_bytes(b"".join([*LINES[:place], LINES[which], *LINES[place:]]))
    assert verify(broken).fault is not None


@given(kept=st.integers(1, sum(map(len, LINES)) - 1))
def test_an_end_cut_within_a_line_is_found(broken: Path, kept: int) -> None:
    broken.write_bytes(b"".join(LINES)[:kept])
    fault = verify(broken).fault
    ends_whole = b"".join(LINES)[kept - 1 : kept] == b"\n"
    assert (fault.kind if fault else None) == (None if ends_whole else "torn")


def test_an_end_cut_after_a_line_is_found_by_a_noted_hash_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(LINES))
    noted = verify(path).last
    assert noted is not None
    path.write_bytes(b"".join(LINES[:-1]))
    assert verify(path).fault is None
    fault = verify(path, noted.hash).fault
    assert fault is not None
    assert fault.kind == "cut"


def test_a_hash_noted_earlier_is_still_in_a_chain_that_went_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_audit(path, 3)
    noted = verify(path).last
    write_audit(path, 3, first=3)
    report = verify(path, noted.hash if noted else "")
    assert (report.fault, report.records) == (None, 6)


def test_a_record_that_was_replaced_with_its_hash_is_found_at_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    forged, _ = seal([entry(99)], Link(1, GENESIS))
    path.write_bytes(b"".join([LINES[0], forged, *LINES[2:]]))
    fault = verify(path).fault
    assert fault is not None
    assert (fault.kind, fault.line) == ("changed", 2)


def test_a_chain_that_begins_with_another_genesis_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(seal([entry()], Link(0, "1" * 64))[0])
    fault = verify(path).fault
    assert fault is not None
    assert fault.kind == "genesis"


def rotated_audit(path: Path) -> None:
    """Write three files of two records each."""
    hours = count()
    rules = RULES.model_copy(update={"retention_days": 1000})
    writer = ChainWriter(path, lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=next(hours)))
    for number in range(3):
        writer.rotate(rules)
        writer.write([entry(2 * number), entry(2 * number + 1)])
    writer.close()


def test_a_deleted_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    rotated_audit(path)
    assert verify(path).files == 3
    old_files(path)[1].path.unlink()
    fault = verify(path).fault
    assert fault is not None
    assert (fault.kind, fault.file, fault.line) == ("missing", "audit.jsonl", 1)


def test_a_deleted_first_file_is_found_where_no_record_speaks_of_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    rotated_audit(path)
    first, second = old_files(path)
    first.path.unlink()
    fault = verify(path).fault
    assert fault is not None
    assert (fault.kind, fault.file, fault.line) == ("missing", second.path.name, 1)


def test_a_line_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writer = ChainWriter(path)
    writer.write([entry()])
    with path.open("ab") as file:
        file.write(b'{"act')
    report = verify(path)
    assert (report.fault, report.records) == (None, 1)
    writer.close()
    fault = verify(path).fault
    assert fault is not None
    assert (fault.kind, fault.line) == ("torn", 2)


def run_verify(*arguments: str, data_home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "turnwise_server.cli", "audit", "verify", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_DATA_HOME": str(data_home)},
    )


def test_the_command_finds_the_audit_in_the_data_directory_and_says_what_there_is(tmp_path: Path) -> None:
    write_audit(tmp_path / "turnwise" / "audit.jsonl", 3)
    ended = run_verify(data_home=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "records 1 to 3" in ended.stdout
    assert "whole" in ended.stdout
    noted = ended.stdout.partition("last hash: ")[2].partition("\n")[0]
    assert run_verify("--expect-last", noted, data_home=tmp_path).returncode == 0
    assert run_verify("--expect-last", "0" * 64, data_home=tmp_path).returncode == 1


def test_the_command_names_file_and_line_of_the_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_audit(path, 3)
    path.write_bytes(path.read_bytes().replace(b"req_1", b"req_7"))
    ended = run_verify(str(path), data_home=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout.startswith("BROKEN at audit.jsonl:2: changed: ")


@pytest.mark.parametrize("noted", ["", "last hash: 12", "A" * 64])
def test_the_command_ends_with_2_where_what_was_noted_is_no_hash(noted: str, tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.jsonl", 1)
    ended = CliRunner().invoke(
        app, ["audit", "verify", str(tmp_path / "audit.jsonl"), "--expect-last", noted]
    )
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--expect-last" in ended.stderr


def test_the_command_ends_with_2_where_there_is_no_audit(tmp_path: Path) -> None:
    ended = run_verify(str(tmp_path / "audit.jsonl"), data_home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
