"""Keeps what finished sequences computed and finds what a new prompt shares: token by token, inside one tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from turnwise_server.engine.kv_cache import KVBlock

MIN_SHARED_TOKENS = 16
"""Below this, computing the tokens again is cheaper than copying them."""


@dataclass(frozen=True, slots=True, eq=False)
class CachedRow:
    """One row of a block whose first `valid` tokens are computed for `tokens`."""

    tenant: str
    tokens: Sequence[int]
    valid: int
    block: KVBlock
    row: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """The prompt's first `tokens` tokens are in `source`."""

    source: CachedRow
    tokens: int


class PrefixCache:
    """Finished rows, the one not used for longest first."""

    def __init__(self) -> None:
        self._rows: list[CachedRow] = []
        self.size = 0

    def __iter__(self) -> Iterator[CachedRow]:
        """Return the rows."""
        return iter(self._rows)

    def add(self, row: CachedRow) -> None:
        """Keep a finished row."""
        self._rows.append(row)
        self.size += row.block.size

    def use(self, match: Match) -> None:
        """Take note of a hit. A prompt that continues most of a row replaces it once it finishes itself."""
        if match.source not in self._rows:
            return
        self._drop(match.source)
        if 2 * match.tokens < match.source.valid:
            self.add(match.source)

    def shrink(self, size: int) -> None:
        """Forget rows until at most `size` tokens are kept."""
        while self.size > max(0, size):
            self._drop(self._rows[0])

    def _drop(self, row: CachedRow) -> None:
        self._rows.remove(row)
        self.size -= row.block.size


def longest_match(prompt: Sequence[int], tenant: str, rows: Iterable[CachedRow]) -> Match | None:
    """Return the row that shares most of the prompt, or None if nothing worth it is shared.

    The last prompt token is never shared: its logits are needed, and computing it makes them.
    """
    best: Match | None = None
    for row in rows:
        if row.tenant != tenant:
            continue
        shared = common_prefix_length(prompt, row.tokens, min(len(prompt) - 1, row.valid))
        if shared >= MIN_SHARED_TOKENS and (best is None or shared > best.tokens):
            best = Match(row, shared)
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
