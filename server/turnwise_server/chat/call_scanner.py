"""Reads the JSON object of one tool call, character by character. Pure text: it knows neither markers nor tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto

from pydantic_core import from_json

_CLOSING = {"{": "}", "[": "]"}
_SPACE = frozenset(" \t\n\r")
_SCALAR = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OTHER_KEYS = frozenset({"id", "type"})
"""What some models write beside name and arguments; it says nothing that counts."""


class Progress(Enum):
    """What is known of the object after a character."""

    OPEN = auto()
    CLOSED = auto()
    BROKEN = auto()
    """No call: not JSON, a key that no call has, or the name of no tool."""


class _Expects(Enum):
    OBJECT = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()


@dataclass(frozen=True, slots=True)
class ReadCall:
    """A complete call; `arguments` is a JSON object in the model's own spelling."""

    name: str
    arguments: str


class CallScanner:
    """Takes an object such as {"name": "f", "arguments": {"a": 1}} in pieces of any length, keys in any order.

    It finds the end of the object, and a name that may not be called, at the earliest character; whether all of it
    is JSON is known at its end (`call`).
    """

    def __init__(self, name_key: str, arguments_key: str, names: Collection[str]) -> None:
        self._name_key = name_key
        self._arguments_key = arguments_key
        self._names = names
        self._text: list[str] = []
        self._open: list[str] = []
        self._expects = _Expects.OBJECT
        self._is_in_string = False
        self._is_escaped = False
        self._token_start = 0
        self._key = ""
        self._arguments: list[int] = []
        self.name: str | None = None

    def arguments_after(self, count: int) -> str | None:
        """Return the arguments as far as they have come, without their first `count` characters.

        None as long as the name is not known too, or if they are no object.
        """
        if self.name is None or not self._arguments or self._text[self._arguments[0]] != "{":
            return None
        start, end = self._arguments[0], (*self._arguments, len(self._text))[1]
        return "".join(self._text[start + count : end])

    def feed(self, char: str) -> Progress:
        """Take the next character."""
        self._text.append(char)
        if self._is_in_string:
            return self._in_string(char)
        if char in _SPACE:
            return Progress.OPEN
        if char == '"':
            return self._begin_string()
        if char in _CLOSING:
            return self._begin_nested(char)
        if char in "}]":
            return self._close(char)
        return self._punctuation(char)

    def call(self) -> ReadCall | None:
        """Return the call that the closed object makes, or None if it is no call."""
        try:
            content = from_json("".join(self._text), allow_inf_nan=False)
        except ValueError:
            return None
        name, arguments = content.get(self._name_key), content.get(self._arguments_key)
        if not isinstance(name, str) or name not in self._names:
            return None
        if arguments is None:
            return ReadCall(name, "{}")
        if isinstance(arguments, str):
            return ReadCall(name, arguments) if _is_object(arguments) else None
        return ReadCall(name, self.arguments_after(0) or "") if isinstance(arguments, dict) else None

    def _in_string(self, char: str) -> Progress:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._is_in_string = False
            return self._string_ended() if len(self._open) == 1 else Progress.OPEN
        elif char < " ":
            return Progress.BROKEN
        return Progress.OPEN

    def _begin_string(self) -> Progress:
        self._is_in_string = True
        if len(self._open) != 1:
            return Progress.OPEN if self._open else Progress.BROKEN
        if self._expects is _Expects.KEY:
            self._token_start = len(self._text) - 1
            return Progress.OPEN
        return self._begin_value()

    def _string_ended(self) -> Progress:
        if self._expects is _Expects.KEY:
            return self._take_string(self._key_ended)
        self._value_ended()
        if self._key == self._name_key:
            return self._take_string(self._name_ended)
        return Progress.OPEN

    def _take_string(self, take: Callable[[str], Progress]) -> Progress:
        try:
            return take(str(from_json("".join(self._text[self._token_start :]))))
        except ValueError:
            return Progress.BROKEN

    def _key_ended(self, key: str) -> Progress:
        self._key = key
        self._expects = _Expects.COLON
        is_known = key in (self._name_key, self._arguments_key) or key in _OTHER_KEYS
        return Progress.OPEN if is_known else Progress.BROKEN

    def _name_ended(self, name: str) -> Progress:
        self.name = name
        return Progress.OPEN if name in self._names else Progress.BROKEN

    def _begin_nested(self, char: str) -> Progress:
        if not self._open and (char != "{" or self._expects is not _Expects.OBJECT):
            return Progress.BROKEN
        progress = self._begin_value() if len(self._open) == 1 else Progress.OPEN
        if not self._open:
            self._expects = _Expects.KEY
        self._open.append(_CLOSING[char])
        return progress

    def _close(self, char: str) -> Progress:
        if not self._open or self._open.pop() != char:
            return Progress.BROKEN
        if len(self._open) == 1:
            self._value_ended()
        if self._open:
            return Progress.OPEN
        return Progress.CLOSED

    def _punctuation(self, char: str) -> Progress:
        if len(self._open) != 1:
            return Progress.OPEN if self._open else Progress.BROKEN
        if char == ":" and self._expects is _Expects.COLON:
            self._expects = _Expects.VALUE
            return Progress.OPEN
        if char == "," and self._expects is _Expects.COMMA:
            self._expects = _Expects.KEY
            return Progress.OPEN
        if char not in _SCALAR:
            return Progress.BROKEN
        if self._expects is _Expects.VALUE:
            self._begin_value()
            self._expects = _Expects.COMMA
            return Progress.OPEN
        return Progress.OPEN if self._expects is _Expects.COMMA else Progress.BROKEN

    def _begin_value(self) -> Progress:
        if self._expects is not _Expects.VALUE:
            return Progress.BROKEN
        self._token_start = len(self._text) - 1
        if self._key == self._arguments_key:
            self._arguments = [self._token_start]
        return Progress.OPEN

    def _value_ended(self) -> None:
        self._expects = _Expects.COMMA
        if self._key == self._arguments_key:
            self._arguments = [self._arguments[0], len(self._text)]


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text, allow_inf_nan=False), dict)
    except ValueError:
        return False
