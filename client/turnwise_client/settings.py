"""What the user may choose: where the server is, the key, the model and how replies are sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from turnwise_client.errors import UsageError

DEFAULT_SERVER = "http://127.0.0.1:8000"
MAX_TEMPERATURE = 2.0
MIN_MAX_TOKENS = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are sampled. None leaves the choice to the server."""

    temperature: float | None = None
    """0 is greedy, 2 the wildest."""
    max_tokens: int | None = None
    """The longest reply, in tokens."""
    seed: int | None = None
    """The same seed, conversation and model give the same reply."""

    def as_fields(self) -> dict[str, int | float]:
        """Return what is set, under OpenAI's names."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _with_temperature(sampling: Sampling, text: str) -> Sampling:
    value = float(text)
    if math.isnan(value) or not 0 <= value <= MAX_TEMPERATURE:
        raise ValueError
    return replace(sampling, temperature=value)


def _with_max_tokens(sampling: Sampling, text: str) -> Sampling:
    value = int(text)
    if value < MIN_MAX_TOKENS:
        raise ValueError
    return replace(sampling, max_tokens=value)


def _with_seed(sampling: Sampling, text: str) -> Sampling:
    return replace(sampling, seed=int(text))


@dataclass(frozen=True, slots=True)
class _Setting:
    apply: Callable[[Sampling, str], Sampling]
    """Raises ValueError when the text is not an allowed value."""
    allowed: str


_SETTINGS: Mapping[str, _Setting] = {
    "temperature": _Setting(_with_temperature, f"a number from 0 to {MAX_TEMPERATURE:g}"),
    "max_tokens": _Setting(_with_max_tokens, f"a whole number of at least {MIN_MAX_TOKENS}"),
    "seed": _Setting(_with_seed, "a whole number"),
}
SETTING_NAMES = tuple(_SETTINGS)
DEFAULT_WORD = "default"


def change_sampling(sampling: Sampling, name: str, value: str) -> Sampling:
    """Return `sampling` with one setting parsed from text; the word `default` unsets it.

    Raises:
        UsageError: there is no such setting, or the value is not allowed.
    """
    name = name.replace("-", "_")
    setting = _SETTINGS.get(name)
    if setting is None:
        raise UsageError(f"there is no setting {name!r}: choose from {', '.join(SETTING_NAMES)}")
    if value == DEFAULT_WORD:
        return replace(sampling, **{name: None})
    try:
        return setting.apply(sampling, value)
    except ValueError as error:
        raise UsageError(f"{name} must be {setting.allowed} or {DEFAULT_WORD!r}, not {value!r}") from error


def server_address(text: str) -> str:
    """Return the server's base address in one form: scheme, host, port and path, without `/v1` and final slash.

    Raises:
        UsageError: it is not an http address.
    """
    address = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(address)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if (
        not is_valid
        or parts.username is not None
        or parts.query
        or parts.fragment
        or not address.isprintable()
        or " " in address
    ):
        raise UsageError(f"{text!r} is not the address of a server, such as {DEFAULT_SERVER}")
    return address.rstrip("/").removesuffix("/v1").rstrip("/")


def read_api_key(file: Path | None, environment_key: str | None) -> str | None:
    """Return the key: from the file if one is named, else from the environment, else None. Keys are never echoed.

    Raises:
        UsageError: the file cannot be read, or what was found cannot be a key.
    """
    if file is None:
        source, key = "TURNWISE_API_KEY", (environment_key or "").strip()
        if not key:
            return None
    else:
        source = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"cannot read the API key file {source!r}: {reason}") from error
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{source!r} does not hold an API key: one line of visible ASCII is expected")
    return key
