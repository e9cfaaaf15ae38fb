"""A policy file that changes while the server runs."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from support.policy_cases import MINIMAL
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.errors import PolicyError
from turnwise_server.moderation.enforcement import follow_policy

VALID = MINIMAL.read_text()
RENAMED = VALID.replace("name: minimal", "name: renamed")


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(VALID)
    return file


def replace(file: Path, text: str) -> None:
    """Replace a file as careful programs do, by renaming another over it."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


def test_an_invalid_policy_cannot_be_begun_with(file: Path) -> None:
    file.write_text("version: 2")
    with pytest.raises(PolicyError, match=r"policy\.yaml:1"):
        PolicyHolder(file)


def test_a_valid_change_takes_effect(file: Path) -> None:
    holder = PolicyHolder(file)
    before = holder.current
    replace(file, RENAMED)
    assert holder.refresh()
    assert holder.current.policy.name == "renamed"
    assert before.policy.name == "minimal"
    assert not holder.refresh()


def test_an_invalid_change_keeps_the_old_policy_and_says_why(
    file: Path, log_lines: list[structlog.typing.EventDict]
) -> None:
    holder = PolicyHolder(file)
    replace(file, VALID.replace("weight: 0.5", "weight: heavy"))
    assert not holder.refresh()
    assert holder.current.policy.name == "minimal"
    assert holder.fault
    assert "policy.yaml:7: principles[0].weight" in holder.fault
    holder.refresh(must_read=True)
    assert [line["event"] for line in log_lines] == ["policy_not_loaded"]


def test_a_repaired_file_is_in_force_again(file: Path) -> None:
    holder = PolicyHolder(file)
    replace(file, "version: [")
    holder.refresh()
    replace(file, RENAMED)
    assert holder.refresh()
    assert holder.fault is None
    assert holder.current.policy.name == "renamed"


def test_a_deleted_file_keeps_the_old_policy(file: Path) -> None:
    holder = PolicyHolder(file)
    file.unlink()
    assert not holder.refresh()
    assert holder.fault
    assert "cannot read the policy" in holder.fault
    assert holder.current.policy.name == "minimal"
    file.write_text(VALID)
    assert not holder.refresh()
    assert holder.fault is None


def test_a_comment_makes_no_other_policy(file: Path) -> None:
    holder = PolicyHolder(file)
    replace(file, "# a comment\n" + VALID)
    assert not holder.refresh()
    assert holder.fault is None


def test_a_change_that_the_clock_hides_is_read_on_demand(file: Path) -> None:
    holder = PolicyHolder(file)
    status = file.stat()
    file.write_text(VALID.replace("name: minimal", "name: minimum"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not holder.refresh()
    assert holder.refresh(must_read=True)
    assert holder.current.policy.name == "minimum"


async def test_a_watched_file_is_read_anew_until_the_watch_ends(file: Path) -> None:
    holder = PolicyHolder(file)
    watch = asyncio.create_task(follow_policy(holder, asyncio.Event(), None, interval_s=0.01))
    replace(file, RENAMED)
    async with asyncio.timeout(5):
        while holder.current.policy.name != "renamed":  # noqa: ASYNC110 - a watch tells nobody
            await asyncio.sleep(0.01)
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch
    assert watch.cancelled()
