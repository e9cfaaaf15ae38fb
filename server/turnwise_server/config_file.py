"""Reads settings from a TOML file. Every fault names the file, and the line where it can."""

from __future__ import annotations

import re
import stat
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path

from turnwise_server.config import SECRET_FIELDS, Settings
from turnwise_server.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody chose, not checked yet."""

    value: object
    place: str
    """Where it stands, in the user's words: a flag, a variable, or a file and line."""


def read_config_file(file: Path) -> dict[str, Given]:
    """Return what a file holds, by its keys, which need not be settings.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or holds a secret that every user of the machine can read.
    """
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text)
        is_open_to_all = bool(file.stat().st_mode & stat.S_IROTH)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration file {str(file)!r}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration file {str(file)!r} is not UTF-8: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the configuration file {str(file)!r} is not TOML: {error}") from error
    entries = {key: Given(value, f"{file}:{_line_of(key, text)}") for key, value in table.items()}
    for key, entry in entries.items():
        if is_open_to_all and key in SECRET_FIELDS:
            raise ConfigurationError(
                f"every user of this machine can read the secret {key} ({entry.place}): "
                f"run `chmod o-r {file}`, or give it by the environment"
            )
        if isinstance(entry.value, bool) and not _is_switch(key):
            # pydantic would take true for 1.
            raise ConfigurationError(f"{key} ({entry.place}) is not a switch: it cannot be true or false")
    return entries


def _line_of(key: str, text: str) -> int:
    """Return the line where a top-level key is first written, or 1 if it is spelled with escapes."""
    found = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(key)}["']?[ \t]*[\].=]""", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _is_switch(key: str) -> bool:
    """Say whether a setting takes booleans; leave keys that are no settings to those who name them."""
    info = Settings.model_fields.get(key)
    return info is None or bool in (info.annotation, *typing.get_args(info.annotation))
