"""Requests and remarks written for the detector, from contrasts.yaml: alarming words in harmless and harmful use."""

import random
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

import yaml

from turnwise_training.safety.rows import Kind, SafetyRow

SOURCE: Final = "contrasts"
LICENCE: Final = "Apache-2.0"


def written_rows(*, frames_each: int, seed: int) -> list[SafetyRow]:
    """Return every written text, and each phrase in `frames_each` frames drawn at random, the same for both sides."""
    written: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("contrasts.yaml").read_text())
    draw = random.Random(seed)
    rows = [
        *_phrases(written, frames_each, draw),
        *(_row(text, frozenset(group["labels"])) for group in written["texts"] for text in group["texts"]),
        *_discrimination(written["discrimination"], frames_each, draw),
    ]
    return list({row.text: row for row in rows}.values())


def _phrases(written: dict[str, Any], frames_each: int, draw: random.Random) -> Iterator[SafetyRow]:
    for group in written["phrases"]:
        unsafe = group.get("unsafe", {"labels": [], "phrases": []})
        for phrases, labels in (
            (group["safe"], frozenset()),
            (unsafe["phrases"], frozenset(unsafe["labels"])),
        ):
            for phrase in phrases:
                for frame in draw.sample(written["frames"], frames_each):
                    yield _row(frame.format(phrase), labels)


def _discrimination(written: dict[str, list[str]], each: int, draw: random.Random) -> Iterator[SafetyRow]:
    """Yield questions about groups: unsafe only where a real group meets a real wrong."""
    for groups, harms, labels in (
        (written["real_groups"], written["real_harms"], frozenset({"hate"})),
        (written["real_groups"], written["silly_harms"], frozenset[str]()),
        (written["invented_groups"], written["real_harms"], frozenset[str]()),
        (written["invented_groups"], written["silly_harms"], frozenset[str]()),
    ):
        for group in groups:
            for _ in range(each):
                yield _row(draw.choice(written["frames"]).format(group, draw.choice(harms)), labels)


def _row(text: str, labels: frozenset[str]) -> SafetyRow:
    kind: Kind = "request" if labels else "hard_safe"
    return SafetyRow(text, bool(labels), labels, SOURCE, LICENCE, kind)
