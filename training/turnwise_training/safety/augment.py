"""Rewrites of a text that do not change what it asks for; harmful and harmless texts go through the same ones."""

import codecs
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from turnwise_training.safety.rows import SafetyRow
from turnwise_training.safety.wrappings import Carrier, framed, piece

_LEET: Final = str.maketrans("aeiost", "431057")
LONGEST: Final = 600
"""Characters of a harmless text that are learnt at most; of a longer one a piece. Harmful ones stay whole."""
CARRIED, FRAMED = 0.45, 0.4
"""Shares of the rewritten rows that are carried or framed; the others are noise."""


def _swapped(text: str, draw: random.Random) -> str:
    characters = list(text)
    for _ in range(max(1, len(characters) // 25)):
        place = draw.randrange(max(1, len(characters) - 1))
        characters[place : place + 2] = reversed(characters[place : place + 2])
    return "".join(characters)


def _moved(text: str, draw: random.Random) -> str:
    """Move the inner letters of half of the longer words."""
    words = text.split(" ")
    for place, word in enumerate(words):
        if len(word) > 3 and draw.random() < 0.5:
            inner = list(word[1:-1])
            draw.shuffle(inner)
            words[place] = word[0] + "".join(inner) + word[-1]
    return " ".join(words)


def _plain(text: str, _: random.Random) -> str:
    return "".join(each for each in text.lower() if each not in "?!.,'\"")


NOISE: Final[dict[str, Callable[[str, random.Random], str]]] = {
    "upper": lambda text, _: text.upper(),
    "plain": _plain,
    "swapped": _swapped,
    "moved": _moved,
    "leet": lambda text, _: text.translate(_LEET),
    "rot13": lambda text, _: codecs.encode(text, "rot13"),
    "backwards": lambda text, _: text[::-1],
}
"""Other spellings by name. The server reads a text undone, too: here the detector learns that noise is no harm."""


def augmented(rows: Iterable[SafetyRow], *, share: float, seed: int) -> Iterator[SafetyRow]:
    """Yield every row, and of each class's rows `share` (which may exceed 1) times as many that are rewritten.

    Harmless texts around others are those of the ordinary rows.
    """
    rows = list(rows)
    carrier = Carrier([row.text for row in rows if row.kind == "ordinary"])
    draw = random.Random(seed)
    for row in rows:
        yield row if row.unsafe else replace(row, text=piece(row.text, LONGEST, draw))
        for _ in range(int(share + draw.random())):
            yield replace(row, text=_rewritten(row, carrier, draw))


def _rewritten(row: SafetyRow, carrier: Carrier, draw: random.Random) -> str:
    text = row.text if row.unsafe else piece(row.text, draw.randint(40, LONGEST), draw)
    kind = draw.random()
    if kind >= CARRIED + FRAMED:
        return draw.choice(list(NOISE.values()))(text, draw)
    if draw.random() < 0.1:
        text = draw.choice((_plain, _swapped))(text, draw)
    if kind < FRAMED:
        return framed(text, draw)
    return carrier.carried(framed(text, draw) if draw.random() < 0.15 else text, draw)
