"""Divides labelled texts by source into training, development and held-out ones, without near-duplicates across."""

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from turnwise_training.errors import DataError
from turnwise_training.safety.config import SafetyConfig
from turnwise_training.safety.contrasts import written_rows
from turnwise_training.safety.near_duplicates import near_duplicates
from turnwise_training.safety.rows import SafetyRow, permitted, read_labelled, read_ordinary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Rows by role; no source has two."""

    train: list[SafetyRow]
    development: list[SafetyRow]
    held_out: list[SafetyRow]


def read_corpus(config: SafetyConfig) -> Corpus:
    """Read every source and divide them; raises DataError for a role given to a source that no file holds."""
    rows = _read_all(config)
    sources = {row.source for row in rows}
    missing = sorted({*config.development, *config.held_out} - sources)
    if missing:
        raise DataError(f"no file holds the source {missing[0]!r} of 'development' or 'held_out'")
    held_out = [row for row in rows if row.source in config.held_out]
    development = _apart([row for row in rows if row.source in config.development], held_out)
    rest = [row for row in rows if row.source not in {*config.development, *config.held_out}]
    allowed = permitted(rest, licences=config.licences, excluded=config.excluded)
    train = _apart(capped(allowed, config.most_each, config.seed), development + held_out)
    development = capped(development, config.measured_each, config.seed)
    held_out = capped(held_out, config.measured_each, config.seed)
    _log.info(
        "%d texts to train on, %d for thresholds, %d held out", len(train), len(development), len(held_out)
    )
    return Corpus(train, development, held_out)


def _read_all(config: SafetyConfig) -> list[SafetyRow]:
    rows = [row for name in config.labelled for row in read_labelled(config.data / name)]
    for source, each in config.ordinary.items():
        path = config.data / each.file
        rows += read_ordinary(path, source=source, licence=each.licence, most=each.rows, seed=config.seed)
    return rows + written_rows(frames_each=config.frames_each, seed=config.seed)


def _apart(rows: list[SafetyRow], others: list[SafetyRow]) -> list[SafetyRow]:
    """Return the rows that none of `others` nearly repeats."""
    repeated = near_duplicates([row.text for row in rows], [row.text for row in others])
    _log.info("left out %d texts that nearly repeat one kept apart", len(repeated))
    return [row for place, row in enumerate(rows) if place not in repeated]


def capped(rows: Iterable[SafetyRow], most: int, seed: int) -> list[SafetyRow]:
    """Return at most `most` rows of each source and class, drawn at random, in random order."""
    groups: dict[tuple[str, bool], list[SafetyRow]] = defaultdict(list)
    for row in rows:
        groups[row.source, row.unsafe].append(row)
    draw = random.Random(seed)
    kept = [row for group in groups.values() for row in draw.sample(group, min(most, len(group)))]
    draw.shuffle(kept)
    return kept


def census(rows: Iterable[SafetyRow]) -> list[dict[str, object]]:
    """Return sources with their licence and counts of safe and unsafe texts, for safety.json and the card."""
    rows = list(rows)
    counts = Counter((row.source, row.licence, row.unsafe) for row in rows)
    return [
        {
            "source": source,
            "licence": licence,
            "safe": counts[source, licence, False],
            "unsafe": counts[source, licence, True],
        }
        for source, licence in sorted({(row.source, row.licence) for row in rows})
    ]
