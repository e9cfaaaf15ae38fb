"""Counts what a file of rows holds: kinds, formats, drops, duplicates, users. It knows nothing of tokens."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from turnwise_training.data.hygiene import PromptKey, prompt_key
from turnwise_training.data.native import to_json
from turnwise_training.data.personal import personal_data
from turnwise_training.data.rows import KINDS, AnyRow, Ranking, Row, Text


@dataclass
class Census:
    """What has been counted so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    """Rows equal to an earlier one, whatever their id."""
    shared_prompts: int = 0
    """Other rows whose prompt an earlier row has, or one that begins like it."""
    personal: Counter[str] = field(default_factory=Counter)
    """Rows that seem to hold personal data, by kind."""
    users: Counter[str] = field(default_factory=Counter)
    completions: Counter[int] = field(default_factory=Counter)
    """Rankings by the number of their completions."""
    pairs: int = 0
    """Pairs of completions that do not tie."""
    first: Row | None = None
    _rows_seen: set[bytes] = field(default_factory=set)
    _prompts_seen: set[PromptKey] = field(default_factory=set)

    def count(self, rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
        """Yield `rows` on and count each."""
        for row in rows:
            self.first = self.first or row
            self.kinds[KINDS[type(row)]] += 1
            self.personal.update(personal_data(row))
            self._count_duplicates(row)
            if not isinstance(row, Text) and row.user is not None:
                self.users[row.user] += 1
            if isinstance(row, Ranking):
                self.completions[len(row.completions)] += 1
                self.pairs += row.pairs
            yield row

    def _count_duplicates(self, row: Row) -> None:
        digest, prompt = _digest(row), prompt_key(row)
        if digest in self._rows_seen:
            self.duplicates += 1
        elif prompt in self._prompts_seen:
            self.shared_prompts += 1
        self._rows_seen.add(digest)
        self._prompts_seen.add(prompt)


def _digest(row: Row) -> bytes:
    body = {key: value for key, value in to_json(row).items() if key != "id"}
    text = json.dumps(body, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
