"""Finds the value of every setting, and remembers where it came from.

Flags go before `TURNWISE_*` variables, those before the TOML file, that before defaults. What no setting knows is an
error in each of them: a typo must not leave a server less guarded than was meant.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from turnwise_server.config import ENV_PREFIX, SECRET_FIELDS, Settings, flag_name, variable_name
from turnwise_server.config_file import Given, read_config_file
from turnwise_server.errors import ConfigurationError

CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"

SECRET_FILE_VARIABLES = {
    f"{variable_name(field)}_FILE": field
    for field in sorted(SECRET_FIELDS)
    if f"{field}_file" not in Settings.model_fields
}
"""Variables that name a file with a secret, as container engines hand them out. A setting of that name goes first."""

CLIENT_VARIABLES = frozenset(
    ENV_PREFIX + name
    for name in (
        "API_KEY",
        "API_KEY_FILE",
        "CHAT_MODEL",
        "MAX_TOKENS",
        "SEED",
        "SERVER",
        "SYSTEM",
        "TEMPERATURE",
    )
)
"""What the terminal client reads: often set in the same shell, and none of the server's business."""

_SERVICE_LINK = re.compile(
    ENV_PREFIX + r"\w*(SERVICE_(HOST|PORT)\w*=|PORT(_\d+_\w+)?=\w+://|PORT_\d+_(TCP|UDP|SCTP)_\w+=)"
)
"""What Kubernetes and container links set by themselves beside a service whose name begins with "turnwise"."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of a server, and where each came from."""

    settings: Settings
    places: Mapping[str, str]
    """The flag, the variable, or the file and line of every setting that is not a default."""


def load_configuration(flags: Mapping[str, object], file: Path | None = None) -> Configuration:
    """Combine flags, the environment, the file (else the one that TURNWISE_CONFIG names) and the defaults.

    Raises:
        ConfigurationError: a source cannot be read, or holds what is not a setting or not valid; never shows a value.
    """
    named = file or os.environ.get(CONFIG_VARIABLE)
    given = _from_file(Path(named)) if named else {}
    given |= _from_environment()
    given |= {field: Given(value, flag_name(field)) for field, value in flags.items()}
    try:
        settings = Settings(**{field: entry.value for field, entry in given.items()})  # type: ignore[arg-type]  # checked by pydantic, by field
    except ValidationError as error:
        raise ConfigurationError(_explain(error, given)) from error
    return Configuration(settings, {field: entry.place for field, entry in given.items()})


def _from_file(file: Path) -> dict[str, Given]:
    entries = read_config_file(file)
    for key, entry in entries.items():
        if key not in Settings.model_fields:
            raise _unknown(f"{key} ({entry.place})", _nearest(key))
    return entries


def _from_environment() -> dict[str, Given]:
    _refuse_unknown_variables()
    given = {
        field: Given(value, variable_name(field)) for field, value in EnvSettingsSource(Settings)().items()
    }
    for variable, field in SECRET_FILE_VARIABLES.items():
        file = os.environ.get(variable)
        if file and field in given:
            raise ConfigurationError(f"{variable} and {variable_name(field)} are both set: unset one of them")
        if file:
            given[field] = Given(_read_secret(variable, Path(file)), variable)
    return given


def _refuse_unknown_variables() -> None:
    known = {variable_name(field) for field in Settings.model_fields}
    known |= SECRET_FILE_VARIABLES.keys() | CLIENT_VARIABLES | {CONFIG_VARIABLE}
    for name, value in os.environ.items():
        is_ours = name.upper().startswith(ENV_PREFIX) and value != ""
        if is_ours and name.upper() not in known and not _SERVICE_LINK.match(f"{name}={value}"):
            nearest = _nearest(name[len(ENV_PREFIX) :].lower())
            raise _unknown(name, nearest and variable_name(nearest))


def _read_secret(variable: str, file: Path) -> str:
    try:
        secret = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {str(file)!r}, which {variable} names: {reason}") from error
    if not secret:
        raise ConfigurationError(f"{str(file)!r}, which {variable} names, is empty")
    return secret


def _nearest(key: str) -> str | None:
    return next(iter(difflib.get_close_matches(key, Settings.model_fields, n=1)), None)


def _unknown(name: str, nearest: str | None) -> ConfigurationError:
    remedy = f"did you mean {nearest}?" if nearest else "`turnwise-server --help` lists them all"
    return ConfigurationError(f"there is no setting {name}: {remedy}")


def _explain(error: ValidationError, given: Mapping[str, Given]) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return reason
    name = ".".join(map(str, problem["loc"]))
    return f"{name} ({given[str(problem['loc'][0])].place}) is not valid: {reason}"
