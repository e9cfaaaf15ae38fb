"""Puts a text among others: into frames composed of written parts, and into passages of real harmless texts."""

import math
import random
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

import yaml

PARTS: Final[dict[str, Any]] = yaml.safe_load(files(__package__).joinpath("wrappings.yaml").read_text())
"""Openers, closers, personas, slots, quotes and tasks, of wrappings.yaml."""
GAPS: Final = (" ", "\n", "\n\n")
LEAST_CARRIED, MOST_CARRIED = 40, 1000
"""Characters of harmless text around a carried one; together they stay within a window of the detector."""
LONG: Final = 300
"""Characters from which a harmless text is a passage; shorter ones are put side by side."""


def framed(text: str, draw: random.Random) -> str:
    """Return the text with a request's trimmings: an opener or a persona before it, closers behind it, or in a slot."""
    shape = draw.choice(("before", "before", "behind", "both", "slot", "slot"))
    if shape == "slot":
        text = draw.choice(PARTS["slots"]).replace("{}", text)
    before = [_opener(draw)] if shape in ("before", "both") or draw.random() < 0.2 else []
    before = [_opener(draw), *before] if before and draw.random() < 0.3 else before
    behind = [draw.choice(PARTS["closers"])] if shape in ("behind", "both") else []
    behind += [draw.choice(PARTS["closers"])] if behind and draw.random() < 0.3 else []
    return draw.choice(GAPS).join([*before, text, *behind])


def _opener(draw: random.Random) -> str:
    personas = PARTS["personas"]
    if draw.random() < 0.6:
        return str(draw.choice(PARTS["openers"]))
    who = draw.choice(personas["who"]) + draw.choice(personas["traits"])
    return str(draw.choice(personas["stances"])).replace("{}", who)


class Carrier:
    """Carries a text within harmless ones: passages, lists of short texts, or one sentence again and again."""

    def __init__(self, harmless: Sequence[str]) -> None:
        self._long = [text for text in harmless if len(text) >= LONG]
        self._short = [text for text in harmless if len(text) < LONG]

    def carried(self, text: str, draw: random.Random) -> str:
        """Return the text before, behind or between harmless ones, at times quoted and under a task."""
        room = math.exp(draw.uniform(math.log(LEAST_CARRIED), math.log(MOST_CARRIED))) - len(text)
        share = draw.choice((0.0, 0.5, 1.0, 1.0, draw.random()))
        before = self._filler(round(max(room, LEAST_CARRIED) * share), draw)
        behind = self._filler(round(max(room, LEAST_CARRIED) * (1 - share)), draw)
        parts = [before, draw.choice(PARTS["quotes"]).replace("{}", text), behind]
        if draw.random() < 0.3:
            parts.insert(draw.choice((0, 3)), draw.choice(PARTS["tasks"]))
        return draw.choice(GAPS).join(part for part in parts if part)

    def _filler(self, chars: int, draw: random.Random) -> str:
        """Return about so many characters of harmless text, whole words of it; nothing for fewer than ten."""
        if chars < 10 or not (self._long or self._short):
            return ""
        if self._long and (not self._short or draw.random() < 0.5):
            return piece(draw.choice(self._long), chars, draw)
        gap = draw.choice(GAPS)
        if draw.random() < 0.2:
            text = draw.choice(self._short)
            return gap.join([text] * max(1, chars // len(text)))
        found = [draw.choice(self._short)]
        while sum(map(len, found)) < chars:
            found.append(draw.choice(self._short))
        return gap.join(found)


def piece(text: str, chars: int, draw: random.Random) -> str:
    """Return a run of whole words of about so many characters, the text itself if it is no longer."""
    if len(text) <= chars:
        return text
    start = draw.randrange(len(text) - chars)
    return " ".join(text[start : start + chars].split(" ")[1:-1]) or text[start : start + chars]
