"""A terminal small enough to read: what the live display writes is obeyed here, so tests can look at the result."""

from __future__ import annotations

import re

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[(?P<args>[?\d;]*)(?P<command>[A-Za-z])|(?P<char>.)", re.DOTALL)


class Screen:
    """Rows of text, with everything that scrolled off the top kept above. Colours are dropped."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self.lines = lines
        self.rows: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self._wraps = True

    @property
    def text(self) -> str:
        """Everything written and not erased, scrolled off or not; trailing blanks dropped."""
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip("\n")

    def write(self, text: str) -> int:
        for match in _TOKEN.finditer(text):
            if match["command"]:
                self._obey(match["args"], match["command"])
            else:
                self._put(match["char"])
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def _obey(self, args: str, command: str) -> None:
        if command == "A":
            top = max(0, len(self.rows) - self.lines)
            self._row = max(top, self._row - int(args or 1))
        elif command == "J":
            del self.rows[self._row + 1 :]
            del self.rows[self._row][self._column :]
        elif args == "?7":
            self._wraps = command == "h"
        elif command != "m":
            raise AssertionError(f"this screen does not know ESC[{args}{command}")

    def _put(self, char: str) -> None:
        if char == "\n":
            self._row, self._column = self._row + 1, 0
        elif char == "\r":
            self._column = 0
        elif char < " " and char != "\t":
            raise AssertionError(f"{char!r} must not reach a terminal")
        else:
            self._print(char)
        while self._row >= len(self.rows):
            self.rows.append([])

    def _print(self, char: str) -> None:
        width = cell_len(char) if char != "\t" else 1
        if self._column + width > self.columns:
            if not self._wraps:
                return
            self._row, self._column = self._row + 1, 0
            if self._row >= len(self.rows):
                self.rows.append([])
        row = self.rows[self._row]
        row.extend(" " * (self._column - len(row)))
        row[self._column : self._column + width] = [char, *[""] * (width - 1)]
        self._column += width
