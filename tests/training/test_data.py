"""Reading and splitting: broken rows are named, duplicates never stand on both sides."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from turnwise_training.data import Conversation, Row, Text, is_held_out, read_rows, read_source, split_source
from turnwise_training.errors import DataError

WriteSource = Callable[[str, list[object]], Path]


def user_says(content: str, reply: str = "Yes.") -> Conversation:
    return Conversation(({"role": "user", "content": content}, {"role": "assistant", "content": reply}))


def test_rows_of_text_and_conversations_are_read_in_order(write_source: WriteSource) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    path = write_source("rows", [{"text": "Once."}, {"messages": messages, "source": "x"}])
    assert list(read_rows(path)) == [Text("Once."), user_says("Hi", "Hello.")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2"),
        (b"\xff\xfe", "line 2"),
        (b"[]", "expected a JSON object, found list"),
        (b"{}", "write a string 'text', a list 'messages'"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "message 0 needs a 'role'"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "message 0 needs a string 'content'"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "needs a user and an assistant message"),
    ],
)
def test_a_broken_row_is_an_error_that_names_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"rows\.jsonl line 2") as error:
        list(read_rows(path))
    assert message in str(error.value)


def test_a_missing_file_and_a_torn_archive_are_named(tmp_path: Path, write_source: WriteSource) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl\.zst: no such file"):
        read_source(tmp_path, "absent", seed=1)
    (tmp_path / "torn.jsonl.zst").write_bytes(b"not zstd at all")
    with pytest.raises(DataError, match=r"torn\.jsonl\.zst: not readable as zstd"):
        read_source(tmp_path, "torn", seed=1)


def test_rows_that_hold_a_mark_are_dropped(write_source: WriteSource) -> None:
    path = write_source("talk", [{"text": "Hi (name)."}, {"text": "Hi Bob."}])
    assert read_source(path.parent, "talk", seed=1, drop_containing=["(name)"]) == [Text("Hi Bob.")]


def test_two_percent_are_held_out_and_no_opening_is_on_both_sides() -> None:
    rows: list[Row] = [user_says(f"Question {n % 5000}?", reply=f"Answer {n}.") for n in range(10_000)]
    train, held_out = split_source(rows, seed=1)
    assert 0.01 < len(held_out) / len(rows) < 0.03
    assert len(train) + len(held_out) == len(rows)
    assert {row.group for row in train}.isdisjoint(row.group for row in held_out)


def test_case_and_spaces_do_not_make_another_opening() -> None:
    openings = [f"Tell me about {n}" for n in range(400)]
    assert any(is_held_out(user_says(opening)) for opening in openings)
    for opening in openings:
        assert is_held_out(user_says(opening)) == is_held_out(user_says(f"  {opening.upper()}\n"))


def test_the_order_of_training_rows_follows_the_seed() -> None:
    rows: list[Row] = [Text(str(n)) for n in range(50)]
    assert split_source(rows, seed=1) == split_source(rows, seed=1)
    assert split_source(rows, seed=1)[0] != split_source(rows, seed=2)[0]


def test_rows_survive_a_round_trip_through_json(write_source: WriteSource) -> None:
    path = write_source("one", [json.loads('{"text": "caf\\u00e9 \\ud83d\\ude00"}')])
    assert list(read_rows(path)) == [Text("café 😀")]
