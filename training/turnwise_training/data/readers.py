"""Reads files of rows, compressed or not, as JSON values; it knows no format of rows."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zstandard

from turnwise_training.errors import DataError

DOCUMENT_CHARACTERS = 8000
"""A .txt file is cut at blank lines into documents of about this length, so that some can be held out."""

Located = tuple[str, object]
"""A value and the file and line it came from."""


def read_values(path: Path) -> Iterator[Located]:
    """Yield each row of a file as a JSON value, with its place for messages.

    Raises DataError for a missing file, an unknown suffix, a torn archive, and what is not UTF-8 or JSON.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    read = READERS.get(_plain_suffix(path))
    if read is None:
        raise DataError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")
    try:
        with _open(path) as file:
            yield from read(file, path)
    except FileNotFoundError:
        raise DataError(_missing(path)) from None
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: not readable as zstd ({error}); fetch the file again") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not readable as gzip ({error}); fetch the file again") from error


def _missing(path: Path) -> str:
    return f"{path}: no such file; a recipe finds a name without suffix in its folder `data`, any other as a path"


def _plain_suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        yield COMPRESSIONS.get(path.suffix, _as_it_is)(file)


def _as_it_is(file: IO[bytes]) -> IO[bytes]:
    return file


def _zstd(file: IO[bytes]) -> IO[bytes]:
    # A file made by appending to another holds several frames; the default ends after the first, silently.
    stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return io.BufferedReader(stream, buffer_size=1 << 20)


def _gzip(file: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=file), buffer_size=1 << 20)


def _read_jsonl(file: IO[bytes], path: Path) -> Iterator[Located]:
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            where = f"{path} line {number}"
            yield where, _parse(line, where)


def _parse(text: bytes, where: str) -> object:
    try:
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{where}: {error}") from error


def _read_json(file: IO[bytes], path: Path) -> Iterator[Located]:
    """Yield the items of a list, or one object; lines of objects are read as such."""
    content = file.read()
    if content.lstrip()[:1] == b"[":
        items = _parse(content, str(path))
        assert isinstance(items, list)
        yield from ((f"{path} item {number}", item) for number, item in enumerate(items, start=1))
        return
    try:
        yield f"{path} item 1", json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError):
        yield from _read_jsonl(io.BytesIO(content), path)


def _read_csv(file: IO[bytes], path: Path) -> Iterator[Located]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        try:
            for row in rows:
                where = f"{path} line {rows.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where}: it has not as many fields as the first line")
                yield where, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} line {rows.line_num + 1}: {error}") from error


def _read_txt(file: IO[bytes], path: Path) -> Iterator[Located]:
    """Yield whole paragraphs, joined to documents of about DOCUMENT_CHARACTERS."""
    lines: list[str] = []
    first, characters = 1, 0
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} line {number}: {error}") from error
        if characters >= DOCUMENT_CHARACTERS and text.isspace():
            yield f"{path} line {first}", {"text": "".join(lines).strip()}
            lines, first, characters = [], number + 1, 0
        lines.append(text)
        characters += len(text)
    if rest := "".join(lines).strip():
        yield f"{path} line {first}", {"text": rest}


def _read_parquet(path: Path) -> Iterator[Located]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{path}: reading .parquet needs pyarrow; run `pip install pyarrow`") from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except FileNotFoundError:
        raise DataError(_missing(path)) from None
    except ArrowException as error:
        raise DataError(f"{path}: not readable as parquet ({error}); fetch the file again") from error


COMPRESSIONS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {".zst": _zstd, ".gz": _gzip}
READERS: dict[str, Callable[[IO[bytes], Path], Iterator[Located]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_txt,
}
SUFFIXES = (*(plain + packed for plain in READERS for packed in ("", ".zst", ".gz")), ".parquet")
"""What the name of a readable file ends in."""
