"""Files of every kind are read and written: compressed, of several frames, torn, as tables and as plain text."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from turnwise_training.data import (
    Conversation,
    Prompt,
    Row,
    Text,
    contents,
    read_rows,
    read_source,
    source_path,
)
from turnwise_training.data.readers import DOCUMENT_CHARACTERS
from turnwise_training.data.writer import write_rows
from turnwise_training.errors import DataError, RunError

ROWS: list[Row] = [Text("Once."), Text("Grüße 😀")]
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in ("Once.", "Grüße 😀"))


def talk(asked: str, said: str) -> Conversation:
    return Conversation(({"role": "user", "content": asked}, {"role": "assistant", "content": said}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\n\n\r\n")),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.jsonl.zst", zstandard.compress(LINES)),
        ("rows.json", b"[" + LINES.strip().replace(b"\n", b",\n") + b"]"),
        ("rows.json", LINES),
        ("rows.json.gz", gzip.compress(LINES)),
        ("rows.csv", "text\nOnce.\nGrüße 😀\n".encode()),
        ("rows.csv.zst", zstandard.compress('\ufefftext,\r\nOnce.,\r\n"Grüße 😀",\r\n'.encode())),
    ],
    ids=[
        "jsonl",
        "blank lines",
        "gzip",
        "zstd",
        "json",
        "json lines",
        "json gzip",
        "csv",
        "csv of a spreadsheet",
    ],
)
def test_rows_are_read_from_every_kind_of_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(read_rows(path)) == ROWS


def test_one_object_is_a_file_of_one_row(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text('{\n  "text": "Once."\n}\n')
    assert list(read_rows(path)) == [Text("Once.")]


def test_a_zstd_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES) + zstandard.compress(LINES))
    assert list(read_rows(path)) == ROWS * 2


@pytest.mark.parametrize("header", ["prompt,completion", "instruction,output", "question,answer"])
def test_a_table_of_questions_and_answers_is_read_as_conversations(tmp_path: Path, header: str) -> None:
    path = tmp_path / "faq.csv"
    path.write_text(f'{header}\n"What, now?","Two\nlines."\nHi,Hello.\n')
    rows = list(read_rows(path))
    assert rows == [talk("What, now?", "Two\nlines."), talk("Hi", "Hello.")]
    assert [row.where for row in rows] == [f"{path} line 3", f"{path} line 4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"question,answer\nHi\n", "line 2: it has not as many fields as the first line"),
        ("rows.csv", b"question,answer\nHi,Hello.,more\n", "line 2: it has not as many fields"),
        ("rows.csv", b"question,answer\nHi,\xff\n", "codec can't decode"),
        ("rows.csv", b'question,answer\nHi,"Hello', "line 2: unexpected end of data"),
        ("rows.csv", b"title\nx\n", "line 2: no known format has the keys"),
        ("rows.json", b'[{"text": "x"}, {]', "rows.json: "),
        ("rows.json", b'[{"text": "x"}, {}]', "item 2: no known format"),
        ("rows.txt", b"fine\n\xff", "rows.txt line 2: "),
        ("rows.jsonl.gz", b"not gzip", "not readable as gzip"),
        ("rows.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "not readable as gzip"),
        ("rows.docx", b"", "the name must end in one of .jsonl"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_plain_text_is_cut_at_blank_lines_into_documents(tmp_path: Path) -> None:
    paragraph = "A line of text.\n" * 100
    path = tmp_path / "book.txt"
    path.write_text("\n".join([paragraph] * 20))
    rows = list(read_rows(path))
    texts = [content for row in rows for content in contents(row)]
    assert "\n\n".join(texts) + "\n" == path.read_text()
    assert all(DOCUMENT_CHARACTERS <= len(text) < DOCUMENT_CHARACTERS + 1700 for text in texts[:-1])
    assert rows[1].where == f"{path} line {1 + texts[0].count(chr(10)) + 2}"


def test_parquet_is_read_where_pyarrow_is_installed(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, an extra, is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, an extra, is not installed")
    rows = [{"prompt": [{"role": "user", "content": "Hi"}], "answer": 4, "completion": None}]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (row,) = read_rows(path)
    assert row == Prompt(({"role": "user", "content": "Hi"},), {"answer": 4})
    assert row.where == f"{path} row 1"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="not readable as parquet"):
        list(read_rows(path))
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "absent.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"rows\.parquet: reading \.parquet needs pyarrow; run"):
        list(read_rows(tmp_path / "rows.parquet"))


def test_a_source_is_found_by_its_name_or_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,answer\nHi,Hello.\n")
    assert read_source(tmp_path, "faq", seed=1) == [talk("Hi", "Hello.")]
    assert read_source(Path("elsewhere"), str(tmp_path / "faq.csv"), seed=1) == [talk("Hi", "Hello.")]
    assert source_path(tmp_path, "absent") == tmp_path / "absent.jsonl.zst"
    assert source_path(tmp_path, "synthetic_talk") is None
    (tmp_path / "faq.txt").write_text("Hi.")
    with pytest.raises(DataError, match="'faq' could be any of"):
        source_path(tmp_path, "faq")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"])
def test_written_rows_are_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    assert write_rows(ROWS, path, force=False) == 2
    assert list(read_rows(path)) == ROWS


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("mine")
    with pytest.raises(RunError, match="exists; choose another name or replace it with --force"):
        write_rows(ROWS, path, force=False)

    def broken() -> Iterator[Row]:
        yield from ROWS
        raise DataError("line 2")

    with pytest.raises(DataError, match="line 2"):
        write_rows(broken(), path, force=True)
    with pytest.raises(DataError, match="no rows are left"):
        write_rows([], path, force=True)
    with pytest.raises(RunError, match=r"must end in one of \.jsonl"):
        write_rows(ROWS, tmp_path / "rows.txt", force=True)
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]
