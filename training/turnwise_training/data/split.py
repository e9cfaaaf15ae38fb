"""Holds out 2% of the rows by what they open with, so that no opening stands on both sides."""

import hashlib
import random

from turnwise_training.data.rows import AnyRow, Row

HELD_OUT_PERCENT = 2


def is_held_out(row: Row) -> bool:
    """Tell whether a row belongs to the held-out 2%; equal groups always fall on one side, in every source."""
    key = " ".join(row.group.lower().split())
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % 100 < HELD_OUT_PERCENT


def split_source(rows: list[AnyRow], *, seed: int) -> tuple[list[AnyRow], list[AnyRow]]:
    """Return the training rows in a seeded order and the held-out rows in file order."""
    train = [row for row in rows if not is_held_out(row)]
    random.Random(seed).shuffle(train)
    return train, [row for row in rows if is_held_out(row)]
