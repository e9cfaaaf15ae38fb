"""Writes the settings in effect as TOML that `--config` takes again. Secrets are named, never shown."""

from __future__ import annotations

import json

from turnwise_server.config import SECRET_FIELDS, Settings
from turnwise_server.config_sources import Configuration


def as_toml(configuration: Configuration) -> str:
    """Return one line for each setting, with where it came from; those without a value as comments."""
    values = configuration.settings.model_dump(mode="json")
    return "".join(
        f"{_entry(field, values[field])}  # {configuration.places.get(field, 'default')}\n"
        for field in Settings.model_fields
    )


def _entry(field: str, value: object) -> str:
    if field in SECRET_FIELDS:
        return f"# {field} is {'set, and not shown' if value else 'not set'}"
    if value is None:
        return f"# {field} is not set"
    return f"{field} = {_toml_value(value)}"


def _toml_value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(map(_toml_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{_text(key)} = {_toml_value(item)}' for key, item in value.items())}}}"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    """Return a basic string: as JSON's, but for one character that only JSON allows as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
