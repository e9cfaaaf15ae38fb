"""Demonstrations written by program: the same for a seed, true, and copied from the dialogue."""

import re

import pytest

from turnwise_training.data import Conversation
from turnwise_training.errors import ConfigurationError
from turnwise_training.synthetic import EVERYTHING, WRITERS, write_rows
from turnwise_training.synthetic.memory import NAME_ASKED


def exchanges(row: Conversation) -> list[tuple[str, str]]:
    """Return what was said and replied, turn by turn."""
    turns = [message for message in row.messages if message["role"] != "system"]
    return [(said["content"], reply["content"]) for said, reply in zip(turns[::2], turns[1::2], strict=True)]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Conversation]]:
    return {name: list(write_rows(name, seed=7)) for name in WRITERS}


@pytest.mark.parametrize("name", WRITERS)
def test_a_seed_fixes_every_dialogue(name: str, rows: dict[str, list[Conversation]]) -> None:
    assert list(write_rows(name, seed=7)) == rows[name]
    assert next(write_rows(name, seed=8)) != rows[name][0]


def test_everything_is_the_sources_one_after_the_other(rows: dict[str, list[Conversation]]) -> None:
    assert list(write_rows(EVERYTHING, seed=7)) == [row for name in sorted(rows) for row in rows[name]]


def test_an_unknown_source_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="synthetic_poems"):
        next(write_rows("synthetic_poems", seed=1))


def test_roles_alternate_and_no_placeholder_is_left(rows: dict[str, list[Conversation]]) -> None:
    for row in (row for source in rows.values() for row in source):
        roles = [message["role"] for message in row.messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert not any(re.search(r"[{}]", message["content"]) for message in row.messages)


def test_a_recalled_name_was_told_before(rows: dict[str, list[Conversation]]) -> None:
    recalled = 0
    for row in rows["synthetic_memory"]:
        told = ""
        for said, reply in exchanges(row):
            match = re.search(r"\b(?:[Yy]our name is|[Yy]ou are|You're) (\w+)[.!,]", reply)
            if said in NAME_ASKED and match:
                assert match[1] in told
                recalled += 1
            told += said
    assert recalled > 5000


def test_most_names_are_seen_once_or_twice_so_that_they_must_be_copied(
    rows: dict[str, list[Conversation]],
) -> None:
    first = [
        re.search(r"[Mm]y name is (\w+)", row.messages[-2 * (len(row.messages) // 2)]["content"])
        for row in rows["synthetic_memory"]
    ]
    names = [match[1] for match in first if match]
    assert len(set(names)) > 500


def test_sums_are_right(rows: dict[str, list[Conversation]]) -> None:
    operations = {
        "+": lambda a, b: a + b,
        "plus": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "minus": lambda a, b: a - b,
        "times": lambda a, b: a * b,
    }
    checked = 0
    for row in rows["synthetic_answers"]:
        for _, reply in exchanges(row):
            match = re.match(r"(\d+) (\+|plus|-|minus|times) (\d+) (?:=|is) (\d+)\.$", reply)
            if match:
                assert operations[match[2]](int(match[1]), int(match[3])) == int(match[4])
                checked += 1
    assert checked > 300
