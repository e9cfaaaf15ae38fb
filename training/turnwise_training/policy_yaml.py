"""Reads the YAML of a policy file into plain values and their lines, by the rules that the server has.

Nothing is constructed but text, numbers, lists and mappings; a plain `no` is a word, as in YAML 1.2, and keys are text.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 16

Place: TypeAlias = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
_NUMBER: Final = re.compile(r"[-+]?(\d{1,15}\.\d{0,15}|\.\d{1,15}|\d{1,15})([eE][-+]?\d{1,2})?")
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}


class PolicyFault(Exception):  # noqa: N818 - the file is at fault; `read_policy` makes it an error that names the file
    """What is wrong in a policy file, and in which line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass
class PolicyYaml:
    """A file's values, and the line that each key and list entry begins at."""

    values: Any = None
    lines: dict[Place, int] = field(default_factory=lambda: {(): 1})

    def line_of(self, place: Place) -> int:
        """Return the line of a value, or of the nearest thing around it that is written down."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


def read_policy_yaml(content: bytes) -> PolicyYaml:
    """Return what one YAML document holds.

    Raises PolicyFault where it is no YAML, too large or too deep, or uses tags, anchors or a key twice.
    """
    if len(content) > MAX_BYTES:
        raise PolicyFault(f"the file is larger than {MAX_BYTES // 1024} KiB", 1)
    try:
        text = content.decode("utf-8")
        _refuse_anchors_and_depth(text)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        raise PolicyFault("not UTF-8", content.count(b"\n", 0, error.start) + 1) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PolicyFault(", ".join(filter(None, (error.context, error.problem))), line) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PolicyFault(f"the character U+{error.character:04X} is not allowed", line) from error
    document = PolicyYaml()
    document.values = _value(node, (), document.lines)
    return document


def _refuse_anchors_and_depth(text: str) -> None:
    """Look at the events alone: an alias could stand for gigabytes, and deep nesting exhausts the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if getattr(event, "anchor", None) is not None:
            raise PolicyFault("anchors (&) and aliases (*) are not allowed", line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise PolicyFault(f"nested deeper than {MAX_DEPTH} levels", line)


def _value(node: yaml.Node | None, place: Place, lines: dict[Place, int]) -> Any:
    if node is None:
        return None
    if node.tag not in (_TAG + "str", _TAG + "seq", _TAG + "map"):
        raise PolicyFault(f"tags such as {node.tag!r:.80} are not allowed", node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        lines.update(((*place, index), item.start_mark.line + 1) for index, item in enumerate(node.value))
        return [_value(item, (*place, index), lines) for index, item in enumerate(node.value)]
    values: dict[str, Any] = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            raise PolicyFault("a key must be plain text", key.start_mark.line + 1)
        if key.value in values:
            raise PolicyFault(f"the key {key.value!r:.80} is given twice", key.start_mark.line + 1)
        lines[*place, key.value] = key.start_mark.line + 1
        values[key.value] = _value(item, (*place, key.value), lines)
    return values


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdigit() else float(text)
