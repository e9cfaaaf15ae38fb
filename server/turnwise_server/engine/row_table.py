"""Says which sequence owns which row of the cache, and keeps finished rows for later prompts.

Rows 0..B-1 hold the sequences being decoded, so that a step reads them as one view; after them come the sequences being
prefilled, finished rows and free ones, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

from turnwise_server.engine.kv_cache import KVCache, RowMove, round_up
from turnwise_server.engine.prefix_cache import MIN_SHARED_TOKENS, CachedRow, Match, longest_match
from turnwise_server.engine.sequence import Sequence

_FIRST_ROWS = 4


@dataclass(slots=True, eq=False)
class _Row:
    tenant: str
    tokens: list[int]
    last_used: int
    sequence: Sequence | None

    @property
    def valid(self) -> int:
        return len(self.tokens) if self.sequence is None else self.sequence.computed


class RowTable:
    """Allocates rows under a budget of `budget_tokens` tokens, rows times capacity."""

    def __init__(self, cache: KVCache, *, max_rows: int, budget_tokens: int, context_length: int) -> None:
        self._cache = cache
        self._max_rows = max_rows
        self._budget_tokens = budget_tokens
        self._context_length = context_length
        self._rows: list[_Row | None] = []
        self._clock = 0
        self.decoding_count = 0

    @property
    def usage(self) -> float:
        """Return the share of the budget that running sequences hold, 0..1."""
        return len(self._active()) * self._cache.capacity / self._budget_tokens

    def decoding(self) -> list[Sequence]:
        """Return the sequences being decoded, in the order of their rows."""
        return [row.sequence for row in self._rows[: self.decoding_count] if row and row.sequence]

    def can_admit(self, sequence: Sequence) -> bool:
        """Say whether the sequence can run to its limit beside those that run, whatever lengths they come to."""
        limits = [active.limit for active in self._active()] + [sequence.limit]
        return len(limits) <= self._max_rows and len(limits) * round_up(max(limits)) <= self._budget_tokens

    def match(self, sequence: Sequence) -> Match | None:
        """Return the cached row that shares most of the sequence's prompt."""
        rows = (
            CachedRow(index, row.tenant, row.tokens, row.valid)
            for index, row in enumerate(self._rows)
            if row is not None
        )
        return longest_match(sequence.tokens, sequence.request.tenant, rows)

    def admit(self, sequence: Sequence) -> None:
        """Give the sequence a row, filled with as much of its prompt as is cached. Call `can_admit` first."""
        self.reserve(sequence.prompt_length + 1)
        match = self.match(sequence)
        if match and self._is_used_up_by(match):
            index = match.row
        else:
            index = self._vacate(keep=match.row if match else -1)
            # Making room may have moved rows or taken the only one that matched.
            match = self.match(sequence)
            if match and match.row != index:
                self._cache.copy_prefix(RowMove(match.row, index, match.tokens))
        sequence.row = index
        sequence.computed = sequence.cached_tokens = match.tokens if match else 0
        self._rows[index] = _Row(sequence.request.tenant, sequence.tokens, self._tick(), sequence)

    def start_decoding(self, sequence: Sequence) -> None:
        """Move a prefilled sequence behind those being decoded."""
        self._swap(sequence.row, self.decoding_count)
        self.decoding_count += 1

    def release(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Take the sequence off its row and keep what is computed for later prompts."""
        if sequence.row < self.decoding_count:
            self.decoding_count -= 1
            self._swap(sequence.row, self.decoding_count)
        index, sequence.row = sequence.row, -1
        tokens = sequence.tokens[: sequence.computed]
        is_kept = keep and len(tokens) >= MIN_SHARED_TOKENS
        self._rows[index] = _Row(sequence.request.tenant, tokens, self._tick(), None) if is_kept else None

    def reserve(self, tokens: int) -> None:
        """Make every row at least `tokens` long, at the cost of finished rows where the budget asks for it."""
        if tokens <= self._cache.capacity:
            return
        active = max(1, len(self._active()))
        ahead = min(round_up(max(tokens, self._cache.capacity * 3 // 2)), round_up(self._context_length))
        capacity = ahead if active * ahead <= self._budget_tokens else round_up(tokens)
        self._resize(min(len(self._rows), self._budget_tokens // capacity), capacity)

    def _active(self) -> list[Sequence]:
        return [row.sequence for row in self._rows if row and row.sequence]

    def _is_used_up_by(self, match: Match) -> bool:
        """Say whether the row is worth more to this prompt than to others: it continues most of what is cached."""
        row = self._rows[match.row]
        return row is not None and row.sequence is None and 2 * match.tokens >= row.valid

    def _vacate(self, keep: int) -> int:
        """Return a row nobody needs: a free one, a new one, or the finished one not used for longest."""
        if None not in self._rows:
            affordable = min(self._max_rows, self._budget_tokens // self._cache.capacity)
            if len(self._rows) < affordable:
                self._resize(min(affordable, max(_FIRST_ROWS, 2 * len(self._rows))), self._cache.capacity)
        if None in self._rows:
            return self._rows.index(None)
        finished = [(row.last_used, i) for i, row in enumerate(self._rows) if row and row.sequence is None]
        others = [entry for entry in finished if entry[1] != keep]
        return min(others or finished)[1]

    def _resize(self, count: int, capacity: int) -> None:
        """Give the cache `count` rows; running sequences stay in their order, finished rows as many as fit."""
        active = [i for i, row in enumerate(self._rows) if row and row.sequence]
        finished = [i for i, row in enumerate(self._rows) if row and not row.sequence]
        finished.sort(key=self._last_used, reverse=True)
        kept = (active + finished)[:count]
        rows = [self._rows[index] for index in kept]
        moves = [
            RowMove(old, new, row.valid) for new, (old, row) in enumerate(zip(kept, rows, strict=True)) if row
        ]
        self._cache.resize(count, capacity, moves)
        self._rows = rows + [None] * (count - len(rows))
        for index, row in enumerate(rows):
            if row and row.sequence:
                row.sequence.row = index

    def _swap(self, first: int, second: int) -> None:
        if first == second:
            return
        one, other = self._rows[first], self._rows[second]
        if one and other:
            self._cache.swap(first, second, max(one.valid, other.valid))
        elif one:
            self._cache.copy_prefix(RowMove(first, second, one.valid))
        elif other:
            self._cache.copy_prefix(RowMove(second, first, other.valid))
        self._rows[first], self._rows[second] = other, one
        for index, row in ((second, one), (first, other)):
            if row and row.sequence:
                row.sequence.row = index

    def _last_used(self, index: int) -> int:
        row = self._rows[index]
        return row.last_used if row else -1

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
