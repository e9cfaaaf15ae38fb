"""Measures rows in tokens and shows on which of them the loss falls."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

from turnwise_training.chat import Encoded, Encoder
from turnwise_training.data.rows import AnyRow, Prompt, Ranking, Row, Vote
from turnwise_training.errors import DataError

ENCODED_AT_ONCE = 256


@dataclass
class Lengths:
    """Tokens of the rows measured so far; a ranking counts as its longest answer, prompt included."""

    encoder: Encoder
    max_tokens: int | None = None
    """Longer rows are dropped."""
    lengths: "array[int]" = field(default_factory=lambda: array("Q"))
    tokens: int = 0
    trained: int = 0
    """The tokens on which the loss falls, of `tokens`."""
    dropped: int = 0
    first: Encoded | None = None

    def measure(self, rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
        """Yield the rows that fit and measure them.

        Raises DataError naming file and line of a row without a token to train on.
        """
        rows = iter(rows)
        while batch := list(islice(rows, ENCODED_AT_ONCE)):
            for row, encoded in zip(batch, encode_rows(batch, self.encoder), strict=True):
                if self._fits(row, encoded):
                    yield row

    def _fits(self, row: Row, encoded: list[Encoded]) -> bool:
        if not isinstance(row, Prompt) and not all(any(each.trained[1:]) for each in encoded):
            raise DataError(f"{row.where}: no token to train on")
        longest = max(len(each.ids) for each in encoded)
        if self.max_tokens is not None and longest > self.max_tokens:
            self.dropped += 1
            return False
        self.lengths.append(longest)
        self.tokens += sum(len(each.ids) for each in encoded)
        self.trained += sum(sum(each.trained) for each in encoded)
        self.first = self.first or encoded[0]
        return True


def encode_rows(rows: list[AnyRow], encoder: Encoder) -> Iterator[list[Encoded]]:
    """Yield for each row its encodings: one, or one an answer for a ranking."""
    parts = [_parts(row) for row in rows]
    encoded = iter(encoder.encode([part for row in parts for part in row]))
    for row, part in zip(rows, parts, strict=True):
        if isinstance(row, Prompt):
            ids = encoder.prompt_ids(row.prompt)
            yield [Encoded(ids, [False] * len(ids))]
        else:
            yield list(islice(encoded, len(part)))


def _parts(row: Row) -> tuple[Row, ...]:
    if isinstance(row, Ranking):
        return row.conversations
    if isinstance(row, Prompt):
        return ()
    return (row.conversation,) if isinstance(row, Vote) else (row,)


def show_mask(encoded: Encoded, encoder: Encoder, *, mark: Callable[[str], str]) -> str:
    """Return the text of a row, control tokens included; `mark` sets off each stretch the loss falls on."""
    tokens = zip(encoded.ids, encoded.trained, strict=True)
    shown = []
    for is_trained, run in groupby(tokens, key=lambda token: token[1]):
        text = encoder.tokenizer.decode([token for token, _ in run])
        shown.append(mark(text) if is_trained else text)
    return "".join(shown)
