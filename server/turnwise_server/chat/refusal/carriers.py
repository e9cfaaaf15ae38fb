"""Finds what stands in the tables, the code and the JSON of a text, to be judged apart from what carries it. Pure.

A detector that reads a request in a frame of another kind sees the frame. Each function returns all that it found as
one text, "" for nothing, and never more than it read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Final

_MIN_WORDS: Final = 4
"""Fewer say nothing without what stands around them."""
_MIN_ROWS: Final = 3
_ROW: Final = re.compile(r"^[ \t]*\|(.+)\|[ \t]*$", re.MULTILINE)
_MAX_COLUMNS: Final = 32
"""Bounds the work on a table with a row of very many cells."""
_RULE: Final = re.compile(r"[\s:-]*")
_FENCED: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LITERAL: Final = re.compile(
    r'"""(.+?)"""' + r"|'''(.+?)'''" + r'|"((?:[^"\\\n]|\\.)+)"' + r"|'((?:[^'\\\n]|\\.)+)'", re.DOTALL
)


def from_tables(text: str) -> str:
    """Return the columns of a text's tables, each on a line, read from top to bottom."""
    rows = [
        cells
        for match in _ROW.finditer(text)
        if not all(map(_RULE.fullmatch, cells := match[1].split("|", _MAX_COLUMNS)))
    ]
    if len(rows) < _MIN_ROWS:
        return ""
    columns = zip_longest(*rows, fillvalue="")
    return _sentences(" ".join(cell.strip() for cell in column if cell.strip()) for column in columns)


def from_literals(text: str) -> str:
    """Return what stands between quotation marks in a JSON document, or in the fenced code of a text."""
    code = text if text.lstrip()[:1] in ("{", "[") else "\n".join(_FENCED.findall(text))
    return _sentences(next(filter(None, match.groups()), "") for match in _LITERAL.finditer(code))


def _sentences(pieces: Iterable[str]) -> str:
    return "\n".join(piece for piece in pieces if len(piece.split()) >= _MIN_WORDS)
