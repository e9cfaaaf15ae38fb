"""Remembers verdicts by what was judged and by which policy, so that a history sent again costs nothing.

It keeps digests, never texts. Verdicts are of any type; they must be immutable, for threads share them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Verdict = TypeVar("Verdict")


class VerdictCache(Generic[Verdict]):
    """The verdicts used last, `capacity` of them. Safe to share between threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, policy_sha: str, text: str) -> Verdict | None:
        """Return the verdict of the policy with this hash on `text`, None where it is not known."""
        key = _key(policy_sha, text)
        with self._lock:
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
            return self._verdicts.get(key)

    def put(self, policy_sha: str, text: str, verdict: Verdict) -> None:
        """Remember a verdict, and forget the one that was not asked for longest if there are too many."""
        key = _key(policy_sha, text)
        with self._lock:
            self._verdicts[key] = verdict
            self._verdicts.move_to_end(key)
            if len(self._verdicts) > self._capacity:
                self._verdicts.popitem(last=False)


def _key(policy_sha: str, text: str) -> bytes:
    """Return the digest of both; texts may hold lone surrogates, which JSON can carry."""
    return hashlib.sha256(f"{policy_sha}\n{text}".encode("utf-8", "surrogatepass")).digest()
