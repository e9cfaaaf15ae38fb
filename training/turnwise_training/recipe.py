"""Turns a recipe file and key=value overrides into a stage's frozen configuration, or says which key is wrong."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from turnwise_training.errors import ConfigurationError

AnyConfig = typing.TypeVar("AnyConfig")


def load_config(kind: type[AnyConfig], recipe: Path, overrides: Sequence[str]) -> AnyConfig:
    """Return the configuration of a recipe file with `key=value` overrides (`optimization.grad_clip=0.5`).

    Raises ConfigurationError for an unknown key (naming the nearest), a missing key or a value of the wrong type.
    """
    try:
        values = yaml.safe_load(recipe.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"no recipe at {recipe}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{recipe}: expected keys and values at the top")
    for override in overrides:
        _override(values, override)
    return typing.cast("AnyConfig", _build(kind, values, ""))


def _override(values: dict[str, object], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise ConfigurationError(f"{override!r} is no override; write key=value")
    *parents, key = path.split(".")
    target = values
    for parent in parents:
        child = target.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigurationError(f"{override!r}: {parent!r} holds no keys")
        target = child
    target[key] = yaml.safe_load(text)


def _build(kind: type[object], values: object, where: str) -> object:
    """Return dataclass `kind` built from a mapping; `where` is the dotted path so far."""
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where.rstrip('.')!r} must hold keys and values, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(typing.cast("type[typing.Any]", kind))}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
            raise ConfigurationError(f"unknown key {where + str(key)!r}; did you mean {where + near[0]!r}?")
    for name, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigurationError(f"missing key {where + name!r}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _convert(hints[key], value, where + key) for key, value in values.items()})


def _convert(hint: object, value: object, where: str) -> object:
    """Return `value` as type `hint`, or raise ConfigurationError naming the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # an optional setting
        return None if value is None else _convert(arguments[0], value, where)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[object]", hint), value, where + ".")
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(
                _convert(k, item, f"{where}[{i}]")
                for i, (k, item) in enumerate(zip(kinds, value, strict=True))
            )
    if origin is Literal and value in arguments:
        return value
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: object, where: str) -> object:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    wanted = hint.__name__ if hint in (bool, int, float, str, Path) else str(hint)
    raise ConfigurationError(f"{where!r} must be {wanted}, not {value!r}")


def as_json(value: object) -> object:
    """Return a configuration as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
