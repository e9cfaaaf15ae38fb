"""Reads YAML as plain values that know their lines. It runs no constructor and follows no alias, so no file can hurt.

Plain scalars mean what they do in YAML 1.2 (`no` is a word, not false), and keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 16

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
Path: TypeAlias = tuple[str | int, ...]

_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_PLAIN_TAGS: Final = frozenset({_TEXT_TAG, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"})
_WORDS: Final[Mapping[str, bool | None]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"[-+]?\d{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(\d{1,15}\.\d{0,15}|\.\d{1,15}|\d{1,15})([eE][-+]?\d{1,2})?")


class YamlFault(Exception):  # noqa: N818 - "fault" says that the file is at fault, not the program
    """What is wrong with a file, and where."""

    def __init__(self, reason: str, *, line: int, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A file's values, and the line that each key and list entry begins at."""

    values: Plain
    lines: Mapping[Path, int]

    def line_of(self, path: Sequence[str | int]) -> int:
        """Return the line of a value, or of the nearest thing around it that is written down."""
        known = next(end for end in range(len(path), -1, -1) if tuple(path[:end]) in self.lines)
        return self.lines[tuple(path[:known])]


def read_yaml(content: bytes) -> YamlDocument:
    """Return what one YAML document holds.

    Raises:
        YamlFault: it is not UTF-8 or no YAML, too large or too deep, or uses tags, anchors or a key twice.
    """
    if len(content) > MAX_BYTES:
        raise YamlFault(f"the file is larger than {MAX_BYTES // 1024} KiB", line=1)
    try:
        root = _compose(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise YamlFault("not UTF-8", line=content.count(b"\n", 0, error.start) + 1) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise YamlFault(
            reason, line=mark.line + 1 if mark else 1, column=mark.column + 1 if mark else None
        ) from error
    except yaml.reader.ReaderError as error:
        line = content.decode("utf-8").count("\n", 0, error.position) + 1
        raise YamlFault(f"the character U+{error.character:04X} is not allowed", line=line) from error
    lines: dict[Path, int] = {(): 1}
    return YamlDocument(_plain(root, (), lines), lines)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Loader(yaml.BaseLoader):
    """Composes nodes; refuses aliases, whose expansion could be huge, and nesting that would exhaust the stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise YamlFault("anchors (&) and aliases (*) are not allowed", line=line)
        if self.depth >= MAX_DEPTH:
            raise YamlFault(f"nested deeper than {MAX_DEPTH} levels", line=line)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _plain(node: yaml.Node | None, path: Path, lines: dict[Path, int]) -> Plain:
    """Return a node's value, and note the lines of what is in it."""
    if node is None:
        return None
    if node.tag not in _PLAIN_TAGS:
        raise YamlFault(f"tags such as {node.tag!r:.80} are not allowed", line=node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
        return [_plain(item, (*path, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node.value) if node.style is None else str(node.value)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Plain]:
    values: dict[str, Plain] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT_TAG:
            raise YamlFault("a key must be plain text", line=line)
        if key.value in values:
            raise YamlFault(f"the key {key.value!r:.80} is given twice", line=line)
        lines[*path, key.value] = line
        values[key.value] = _plain(value, (*path, key.value), lines)
    return values


def _scalar(text: str) -> Plain:
    """Return what a scalar without quotes means in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
