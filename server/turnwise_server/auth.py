"""API keys: hashes in memory, a key file of hashes, and the comparison. It knows nothing of HTTP."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from turnwise_server.errors import ConfigurationError
from turnwise_server.limits.rates import MAX_RATE, NO_LIMITS, RateLimits

KEY_PREFIX = "tw-"
ADMIN = "admin"
OVERRIDE = "safety:override"
"""May be answered against the policy, where the policy says so."""
TRUSTED = "safety:trusted"
"""Vouches for its own system messages: they are not judged."""
SCOPES = frozenset({ADMIN, OVERRIDE, TRUSTED})
"""What a key may be allowed beyond what every key may do."""

RefusalStyle = Literal["content", "field", "both"]
"""Where the words of a refusal stand: as the reply's content, in the field `refusal`, or in both."""

_LINE = re.compile(r"sha256:(?P<digest>[0-9a-f]{64})(?:\s+(?P<words>\S.*))?")
_LIMITS = frozenset({"rpm", "tpm", "concurrent"})


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the server keeps it: never the key itself."""

    digest: str
    """Lower-case hex SHA-256 of the key."""
    name: str = ""
    scopes: frozenset[str] = frozenset()
    limits: RateLimits = NO_LIMITS
    """Its own limits, which go before those of the server."""
    refusal_style: RefusalStyle | None = None
    """How refusals are shown to it, if not as the policy says."""

    @property
    def key_id(self) -> str:
        """What logs and errors may show: the first 12 hex digits of the digest."""
        return self.digest[:12]

    def line(self) -> str:
        """Return the record as a line of a key file."""
        words = [f"sha256:{self.digest}", self.name]
        if self.scopes:
            words.append(f"scope={','.join(sorted(self.scopes))}")
        if self.refusal_style:
            words.append(f"refusal={self.refusal_style}")
        words += [f"{name}={value}" for name, value in asdict(self.limits).items() if value is not None]
        return " ".join(word for word in words if word)


class KeyRing:
    """The keys that open the server. An empty ring means that no key is needed."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._records = tuple(records)

    def __bool__(self) -> bool:
        return bool(self._records)

    def find(self, key: str) -> KeyRecord | None:
        """Return the record of a key, comparing with every one in constant time."""
        digest = _digest(key)
        found = None
        for record in self._records:
            if hmac.compare_digest(record.digest, digest):
                found = record
        return found

    @classmethod
    def load(cls, file: Path | None, plain_keys: Iterable[str] = ()) -> KeyRing:
        """Read the hashes of a key file and hash the plain keys that came by the environment.

        Raises:
            ConfigurationError: the file cannot be read, or a line of it is not a key hash.
        """
        records = [hash_key(key) for key in plain_keys]
        if file is not None:
            records += _read_file(file)
        return cls(records)


def new_key() -> str:
    """Make a key with 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str, words: str = "") -> KeyRecord:
    """Hash a key. Keys are long and random, so a plain SHA-256 cannot be guessed back.

    Args:
        key: the key itself.
        words: what stands behind the hash in a key file: a name, and `word=value` for its scope and limits.

    Raises:
        ConfigurationError: a `word=value` has no meaning.
    """
    return _record(_digest(key), words)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _read_file(file: Path) -> list[KeyRecord]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the key file {str(file)!r}: {error}") from error
    records = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            records.append(_read_line(line))
        except ConfigurationError as error:
            raise ConfigurationError(f"line {number} of the key file {str(file)!r} {error}") from error
    if not records:
        raise ConfigurationError(
            f"the key file {str(file)!r} holds no key hash; make one with `turnwise-server hash-key`"
        )
    return records


def _read_line(line: str) -> KeyRecord:
    """Read one line. It may be a key that somebody pasted by mistake, so no error shows anything of it."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ConfigurationError("is not a key hash; make one with `turnwise-server hash-key`")
    return _record(match["digest"], match["words"] or "")


def _record(digest: str, words: str) -> KeyRecord:
    """Read a name and the `word=value`s around it."""
    names: list[str] = []
    settings: dict[str, str] = {}
    for word in words.split():
        name, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif name in settings or name not in _LIMITS | {"scope", "refusal"}:
            raise ConfigurationError(
                "has a word with '=' that is unknown or there twice: known are scope=, refusal=, rpm=, tpm= "
                "and concurrent=, and a name must hold no '='"
            )
        else:
            settings[name] = value
    scopes = _scopes(settings.pop("scope")) if "scope" in settings else frozenset[str]()
    style = _style(settings.pop("refusal")) if "refusal" in settings else None
    limits = RateLimits(**{name: _limit(name, value) for name, value in settings.items()})
    return KeyRecord(digest, " ".join(names), scopes, limits, style)


def _scopes(value: str) -> frozenset[str]:
    scopes = frozenset(value.split(","))
    if not scopes <= SCOPES:
        raise ConfigurationError(f"has an unknown scope: known are {', '.join(sorted(SCOPES))}")
    return scopes


def _style(value: str) -> RefusalStyle:
    for style in get_args(RefusalStyle):
        if value == style:
            return cast("RefusalStyle", style)
    raise ConfigurationError("has a value of refusal= that is none of content, field and both")


def _limit(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or not 1 <= int(value) <= MAX_RATE:
        raise ConfigurationError(f"has a value of {name}= that is no whole number from 1 to {MAX_RATE}")
    return int(value)
