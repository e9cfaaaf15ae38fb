"""Gives sequences their key-value memory under one budget, and keeps finished ones for later prompts.

A prompt is computed in a block of its own. To be decoded, a sequence moves into the batch: one tight block whose rows
0..B-1 are the sequences being decoded, and whose capacity is what the longest of them needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from turnwise_server.engine.kv_cache import KVBlock, KVFormat, round_up
from turnwise_server.engine.prefix_cache import (
    MIN_SHARED_TOKENS,
    CachedRow,
    Match,
    PrefixCache,
    longest_match,
)
from turnwise_server.engine.sequence import Sequence

_BATCH_STEPS = (1, 2, 4, 8, 16, 24, 32)
"""Sizes the batch grows through; then by eight."""


class KVPool:
    """Memory for running and finished sequences: at most `budget` tokens, of which finished ones get a quarter."""

    def __init__(self, form: KVFormat, budget: int) -> None:
        self._form = form
        self._budget = budget
        self._finished = PrefixCache()
        self._prefilling: list[Sequence] = []
        self.batch = KVBlock(form, 0, 0)
        self.decoding: list[Sequence] = []
        """Sequences in the batch, by row."""

    @property
    def usage(self) -> float:
        """Return the share of the budget that running sequences hold, 0..1."""
        return (len(self.decoding) * self.batch.capacity + self._prefill_size()) / self._budget

    def can_admit(self, sequence: Sequence) -> bool:
        """Say whether the sequence can run to its limit beside those that run, whatever lengths they come to."""
        limits = [running.limit for running in (*self.decoding, *self._prefilling, sequence)]
        prompts = self._prefill_size() + round_up(sequence.prompt_length)
        return batch_rows(len(limits)) * round_up(max(limits)) + prompts <= self._budget

    def match(self, sequence: Sequence) -> Match | None:
        """Return the row, finished or running, that shares most of the sequence's prompt."""
        return longest_match(sequence.tokens, sequence.request.tenant, self._rows())

    def admit(self, sequence: Sequence) -> None:
        """Give the sequence a block for its prompt, filled with what is computed already."""
        match = self.match(sequence)
        block = KVBlock(self._form, 1, round_up(sequence.prompt_length))
        if match:
            block.copy_row(0, match.source.block, match.source.row, match.tokens)
            self._finished.use(match)
            sequence.computed = sequence.cached_tokens = match.tokens
        sequence.block = block
        self._prefilling.append(sequence)
        self._keep_budget()

    def start_decoding(self, sequence: Sequence) -> None:
        """Move a prefilled sequence into the batch."""
        assert sequence.block is not None
        row = len(self.decoding)
        self._fit_batch(row + 1, sequence.computed + 1)
        self.batch.copy_row(row, sequence.block, 0, sequence.computed)
        sequence.block, sequence.row = None, row
        self._prefilling.remove(sequence)
        self.decoding.append(sequence)

    def prepare_step(self) -> None:
        """Make room in the batch for one more token of every sequence."""
        if self.decoding:
            self._fit_batch(len(self.decoding), 0)

    def release(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the sequence's memory; what it computed serves later prompts if `keep`."""
        if keep and sequence.computed >= MIN_SHARED_TOKENS:
            self._finished.add(self._finished_row(sequence))
        if sequence.block:
            self._prefilling.remove(sequence)
        else:
            self._close_gap(sequence.row)
        sequence.block, sequence.row = None, -1
        self._keep_budget()

    def _rows(self) -> Iterator[CachedRow]:
        yield from self._finished
        for running in self._prefilling:
            assert running.block is not None
            yield CachedRow(running.request.tenant, running.tokens, running.computed, running.block)
        for running in self.decoding:
            yield CachedRow(running.request.tenant, running.tokens, running.computed, self.batch, running.row)

    def _finished_row(self, sequence: Sequence) -> CachedRow:
        source, row = (sequence.block, 0) if sequence.block else (self.batch, sequence.row)
        block = KVBlock(self._form, 1, round_up(sequence.computed))
        block.copy_row(0, source, row, sequence.computed)
        tokens = sequence.tokens[: sequence.computed]
        return CachedRow(sequence.request.tenant, tokens, len(tokens), block)

    def _close_gap(self, row: int) -> None:
        last = self.decoding.pop()
        if last.row != row:
            self.batch.copy_row(row, self.batch, last.row, last.computed)
            self.decoding[row] = last
            last.row = row

    def _fit_batch(self, rows: int, tokens: int) -> None:
        """Resize the batch if it is too small, or more than twice as long as needed."""
        longest = max([tokens, *(sequence.computed + 1 for sequence in self.decoding)])
        is_slack = self.batch.capacity >= 2 * round_up(longest)
        if rows > self.batch.rows or longest > self.batch.capacity or is_slack:
            self.batch.resize(
                batch_rows(rows), round_up(longest), [sequence.computed for sequence in self.decoding]
            )
            self._keep_budget()

    def _prefill_size(self) -> int:
        return sum(round_up(sequence.prompt_length) for sequence in self._prefilling)

    def _keep_budget(self) -> None:
        running = self.batch.size + self._prefill_size()
        self._finished.shrink(min(self._budget // 4, self._budget - running))


def batch_rows(sequences: int) -> int:
    """Return how many rows a batch for so many sequences has."""
    return next((size for size in _BATCH_STEPS if size >= sequences), -(-sequences // 8) * 8)
