"""Dialogues in which the user tells facts and asks for them later: the answer must be copied from the dialogue."""

import random
from collections.abc import Callable

from turnwise_training.synthetic import words
from turnwise_training.synthetic.phrases import Pair, Phrases
from turnwise_training.synthetic.words import article, first_name

_MEMORY = Phrases("memory")
NAME_TOLD = _MEMORY.lines("name_told")
NAME_GREETED = _MEMORY.lines("name_greeted")
NAME_ASKED = _MEMORY.lines("name_asked")
NAME_RECALLED = _MEMORY.lines("name_recalled")
NAME_UNKNOWN = _MEMORY.lines("name_unknown")
KIN = _MEMORY.lines("kin")
VALUES: dict[str, Callable[[random.Random], str]] = {
    "colour": lambda rng: rng.choice(words.COLOURS),
    "food": lambda rng: rng.choice(words.FOODS),
    "city": lambda rng: rng.choice(words.CITIES),
    "pet": lambda rng: rng.choice([rng.choice(words.PET_NAMES), first_name(rng)]),
    "age": lambda rng: str(rng.randint(7, 89)),
    "job": lambda rng: rng.choice(words.JOBS),
    "hobby": lambda rng: rng.choice(words.HOBBIES),
    "friend": first_name,
}
"""For each kind of fact in memory.yaml, how its value is drawn."""
STAGES = ("told", "noted", "asked", "recalled")
PHRASES = {kind: [_MEMORY.lines(f"facts.{kind}.{stage}") for stage in STAGES] for kind in VALUES}


def _fill(template: str, value: str, extra: dict[str, str]) -> str:
    text = template.format(value, a=article(value), **extra)
    return text[0].upper() + text[1:]


def name_pairs(rng: random.Random, name: str) -> tuple[Pair, Pair]:
    """Return the exchange that tells a name and the one that asks for it."""
    told = (rng.choice(NAME_TOLD).format(name), rng.choice(NAME_GREETED).format(name))
    return told, (rng.choice(NAME_ASKED), rng.choice(NAME_RECALLED).format(name))


def fact_pairs(rng: random.Random, kind: str) -> tuple[Pair, Pair]:
    """Return the exchange that tells a fact and the one that asks for it."""
    value = VALUES[kind](rng)
    extra = {"pet": rng.choice(words.PET_KINDS), "kin": rng.choice(KIN)}
    told, noted, asked, recalled = (_fill(rng.choice(part), value, extra) for part in PHRASES[kind])
    return (told, noted), (asked, recalled)


def name_dialogue(rng: random.Random, distract: Callable[[random.Random], Pair]) -> list[Pair]:
    """Return a dialogue that tells a name, talks of 0 to 3 other things, and asks for the name."""
    name = first_name(rng)
    told, asked = name_pairs(rng, name)
    pairs = [distract(rng)] if rng.random() < 0.15 else []
    pairs += [told, *(distract(rng) for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3]))), asked]
    if rng.random() < 0.25:
        pairs.append(
            (
                rng.choice(
                    ["Thanks!", "Thank you.", "Great, thank you!", "That's right!", "Correct!", "Yes!"]
                ),
                rng.choice(
                    [f"You're welcome, {name}!", f"Happy to help, {name}.", f"Glad I remembered, {name}!"]
                ),
            )
        )
    elif rng.random() < 0.15:
        other = first_name(rng)
        pairs.append(
            (
                rng.choice(
                    [
                        f"Actually, my name is {other}.",
                        f"No, I'm {other}.",
                        f"I was joking. My name is {other}.",
                    ]
                ),
                rng.choice(
                    [
                        f"Sorry about that, {other}! I'll call you {other}.",
                        f"Thank you for telling me, {other}.",
                    ]
                ),
            )
        )
        pairs.append((rng.choice(NAME_ASKED), rng.choice(NAME_RECALLED).format(other)))
    return pairs


def fact_dialogue(rng: random.Random, distract: Callable[[random.Random], Pair]) -> list[Pair]:
    """Return a dialogue that tells one to three facts, often a name too, and asks for them in any order."""
    kinds = rng.sample(sorted(VALUES), rng.choice([1, 1, 2, 2, 3]))
    told_and_asked = [fact_pairs(rng, kind) for kind in kinds]
    if rng.random() < 0.5:
        told_and_asked.insert(0, name_pairs(rng, first_name(rng)))
    told = [pair for pair, _ in told_and_asked]
    if len(told) > 1 and rng.random() < 0.4:
        told = [
            (
                " ".join(user for user, _ in told),
                rng.choice(
                    [
                        "Thank you for telling me. I'll remember that.",
                        "Nice to know! How can I help you?",
                        told[0][1],
                    ]
                ),
            )
        ]
    asked = [pair for _, pair in told_and_asked]
    rng.shuffle(asked)
    return [*told, *(distract(rng) for _ in range(rng.choice([0, 0, 1, 2]))), *asked]


def unknown_dialogue(rng: random.Random, distract: Callable[[random.Random], Pair]) -> list[Pair]:
    """Return a dialogue that asks for a name nobody has told, then tells it."""
    pairs = [distract(rng)] if rng.random() < 0.6 else []
    pairs.append((rng.choice(NAME_ASKED), rng.choice(NAME_UNKNOWN)))
    if rng.random() < 0.6:
        pairs += name_pairs(rng, first_name(rng))
    return pairs
