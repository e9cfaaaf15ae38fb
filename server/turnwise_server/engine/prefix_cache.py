"""Finds cached tokens that a new prompt begins with: token by token, and only inside one tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIN_SHARED_TOKENS = 16
"""Below this, computing the tokens again is cheaper than copying them."""


@dataclass(frozen=True, slots=True)
class CachedRow:
    """What one row of the cache holds; `tokens[:valid]` are computed."""

    row: int
    tenant: str
    tokens: Sequence[int]
    valid: int


@dataclass(frozen=True, slots=True)
class Match:
    """Row `row` begins with the prompt's first `tokens` tokens."""

    row: int
    tokens: int


def longest_match(prompt: Sequence[int], tenant: str, rows: Iterable[CachedRow]) -> Match | None:
    """Return the row that shares most of the prompt, or None if nothing worth it is shared.

    The last prompt token is never shared: its logits are needed, and computing it makes them.
    """
    best: Match | None = None
    for cached in rows:
        if cached.tenant != tenant:
            continue
        shared = common_prefix_length(prompt, cached.tokens, min(len(prompt) - 1, cached.valid))
        if shared >= MIN_SHARED_TOKENS and (best is None or shared > best.tokens):
            best = Match(cached.row, shared)
    return best


def common_prefix_length(first: Sequence[int], second: Sequence[int], limit: int) -> int:
    """Return how many of the first `limit` tokens are equal, by bisection over whole-slice comparisons."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
