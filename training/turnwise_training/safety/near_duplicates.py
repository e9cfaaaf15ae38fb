"""Finds texts that say nearly the same, so that none of what is trained on returns in what is measured."""

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHINGLE: Final = 5
"""Characters in a shingle."""
BANDS: Final = 24
ROWS: Final = 3
"""Minimal hashes in a band; 24 bands of 3 find pairs of similarity 0.5 in 96 of 100 cases."""

_PRIME: Final = 4294967291


def near_duplicates(texts: Sequence[str], others: Sequence[str], *, similarity: float = 0.5) -> set[int]:
    """Return the places in `texts` whose Jaccard similarity of shingles with one of `others` reaches `similarity`.

    Source: Broder, "On the resemblance and containment of documents", 1997 (minimal hashes in bands).
    """
    draw = np.random.default_rng(0)
    factors = draw.integers(1, _PRIME, size=BANDS * ROWS, dtype=np.uint64) >> np.uint64(1)
    shifts = draw.integers(0, _PRIME, size=BANDS * ROWS, dtype=np.uint64)
    shingles = [_shingles(text) for text in others]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for place, each in enumerate(shingles):
        for key in _bands(each, factors, shifts):
            buckets[key].append(place)
    found = set()
    for place, text in enumerate(texts):
        own = _shingles(text)
        candidates = {other for key in _bands(own, factors, shifts) for other in buckets.get(key, ())[:50]}
        if any(_jaccard(own, shingles[other]) >= similarity for other in candidates):
            found.add(place)
    return found


def _shingles(text: str) -> frozenset[int]:
    plain = "".join(each if each.isalnum() else " " for each in text.lower())
    plain = " ".join(plain.split())[:2000]
    count = max(1, len(plain) - SHINGLE + 1)
    return frozenset(zlib.crc32(plain[start : start + SHINGLE].encode()) for start in range(count))


def _bands(
    shingles: frozenset[int], factors: NDArray[np.uint64], shifts: NDArray[np.uint64]
) -> list[tuple[int, bytes]]:
    values = np.fromiter(shingles, dtype=np.uint64)
    hashed = (values[:, None] * factors[None, :] + shifts[None, :]) % np.uint64(_PRIME)
    minima = hashed.min(axis=0).reshape(BANDS, ROWS)
    return [(band, minima[band].tobytes()) for band in range(BANDS)]


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    return len(a & b) / len(a | b)
