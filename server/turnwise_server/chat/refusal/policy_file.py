"""Reads a policy file, or says in which line it is wrong and why."""

from __future__ import annotations

import difflib
import hashlib
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from turnwise_server.chat.refusal import yaml_lines
from turnwise_server.chat.refusal.policy import Policy
from turnwise_server.chat.refusal.policy_checks import check_policy
from turnwise_server.chat.refusal.policy_types import PATTERNS_IN_WORDS
from turnwise_server.chat.refusal.yaml_lines import MAX_BYTES, Plain, YamlDocument, YamlFault, read_yaml
from turnwise_server.errors import PolicyError

DEFAULT_POLICY: Final = Path(__file__).parents[2] / "policies" / "default.yaml"

_TYPES_IN_WORDS: Final = {
    "model_type": "here must stand keys with values, each as `key: value`",
    "dict_type": "here must stand keys with values, each as `key: value`",
    "tuple_type": "must be a list, as `[a, b]`, or a line with a dash for each",
    "string_type": "must be text; what YAML reads as something else needs quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "too_short": "must not be empty",
}
"""What pydantic says in the words of programs, in those of people who write YAML."""


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A valid policy and what identifies it."""

    policy: Policy
    sha256: str
    """The digest of what the file says, whatever its comments, layout and order of keys."""


def load_policy(file: Path) -> LoadedPolicy:
    """Read and check a policy file.

    Raises:
        PolicyError: it cannot be read or is wrong; the message is `FILE:LINE: reason`.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot read the policy {str(file)!r}: {error.strerror}") from error
    try:
        return parse_policy(content)
    except YamlFault as fault:
        column = f":{fault.column}" if fault.column else ""
        raise PolicyError(f"{file}:{fault.line}{column}: {fault.reason}") from fault


def parse_policy(content: bytes) -> LoadedPolicy:
    """Return the policy that a file holds.

    Raises:
        YamlFault: the first thing that is wrong with it.
    """
    document = read_yaml(content)
    canonical = canonical_json(document.values)
    try:
        policy = Policy.model_validate_json(canonical)
    except ValidationError as error:
        # A misspelt key is both unknown and missing: the first of the two says more.
        details = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise _fault(details[0], document) from error
    for path, reason in check_policy(policy):
        raise YamlFault(f"{_dotted(path)}: {reason}", line=document.line_of(path))
    return LoadedPolicy(policy, hashlib.sha256(canonical).hexdigest())


def canonical_json(values: Plain) -> bytes:
    """Write values so that equal ones are equal bytes: keys sorted, no spaces, whole numbers without a fraction."""
    text = json.dumps(_whole(values), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def _whole(value: Plain) -> Plain:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case _:
            return value


def _fault(details: ErrorDetails, document: YamlDocument) -> YamlFault:
    path = _written_path(details["loc"], document.values)
    match details["type"]:
        case "extra_forbidden":
            reason = f"unknown key{_nearest(str(path[-1]), _keys_at(path[:-1]))}"
        case "missing":
            reason = f"the key {details['loc'][-1]} is missing"
        case "string_pattern_mismatch":
            reason = PATTERNS_IN_WORDS.get(details["ctx"]["pattern"], details["msg"])
        case kind:
            reason = _TYPES_IN_WORDS.get(kind, details["msg"])
    return YamlFault(f"{_dotted(path)}: {reason}" if path else reason, line=document.line_of(path))


def _written_path(loc: Sequence[str | int], values: Plain) -> yaml_lines.Path:
    """Return the part of an error's location that stands in the file; pydantic adds names of keys and branches."""
    path: list[str | int] = []
    for step in loc:
        match values:
            case dict() if step in values:
                values = values[str(step)]
            case list() if isinstance(step, int) and step < len(values):
                values = values[step]
            case _:
                break
        path.append(step)
    return tuple(path)


def _keys_at(path: Sequence[str | int]) -> Sequence[str]:
    """Return the keys that the part of the policy at a path may have."""
    model: type[BaseModel] = Policy
    for step in path:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the part that a field holds, alone, as one of several or optionally."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _nearest(key: str, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(keys)}"


def _dotted(path: Sequence[str | int]) -> str:
    """Write a path as categories[2].input.action."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]
