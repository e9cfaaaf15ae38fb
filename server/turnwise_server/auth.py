"""API keys: hashes in memory, a key file of hashes, and the comparison. It knows nothing of HTTP."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from turnwise_server.errors import ConfigurationError

KEY_PREFIX = "tw-"
_LINE = re.compile(r"sha256:(?P<digest>[0-9a-f]{64})(?:\s+(?P<name>\S.*))?")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the server keeps it: never the key itself."""

    digest: str
    """Lower-case hex SHA-256 of the key."""
    name: str = ""

    @property
    def key_id(self) -> str:
        """What logs and errors may show: the first 12 hex digits of the digest."""
        return self.digest[:12]

    def line(self) -> str:
        """Return the record as a line of a key file."""
        return f"sha256:{self.digest} {self.name}".rstrip()


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


def hash_key(key: str, name: str = "") -> KeyRecord:
    """Hash a key. Keys are long and random, so a plain SHA-256 cannot be guessed back."""
    return KeyRecord(_digest(key), name)


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
        match = _LINE.fullmatch(line)
        if match is None:
            # The line itself may be a key that somebody pasted by mistake: it must not be shown.
            raise ConfigurationError(
                f"line {number} of the key file {str(file)!r} is not a key hash; "
                "make one with `turnwise-server hash-key`"
            )
        records.append(KeyRecord(match["digest"], match["name"] or ""))
    if not records:
        raise ConfigurationError(
            f"the key file {str(file)!r} holds no key hash; make one with `turnwise-server hash-key`"
        )
    return records
