"""Dialogues whose system message changes how the assistant answers: a name, a mood, a fixed ending, brevity."""

import random

from turnwise_training.synthetic import words
from turnwise_training.synthetic.knowledge import answer
from turnwise_training.synthetic.phrases import Pair, Phrases
from turnwise_training.synthetic.skills import CAPITALS, OPPOSITES, skill
from turnwise_training.synthetic.small_talk import FEELINGS, GREETINGS, PARTINGS, say
from turnwise_training.synthetic.words import first_name

_INSTRUCTIONS = Phrases("instructions")
PLAIN = _INSTRUCTIONS.lines("plain")
_PERSONA = _INSTRUCTIONS.lines("persona")
_PERSONA_ASKED = _INSTRUCTIONS.lines("persona_asked")
_PERSONA_TOLD = _INSTRUCTIONS.lines("persona_told")
_KNOWN = _INSTRUCTIONS.rows("known")
_ENDINGS = _INSTRUCTIONS.lines("endings")


def instructed_dialogue(rng: random.Random) -> tuple[str, list[Pair]]:
    """Return a system message and the exchanges that follow it."""
    return rng.choice([_persona, _persona, _brief, _ending, _known, _user_name])(rng)


def _persona(rng: random.Random) -> tuple[str, list[Pair]]:
    name = first_name(rng)
    pairs = [say(rng, GREETINGS)] if rng.random() < 0.4 else []
    pairs.append((rng.choice(_PERSONA_ASKED), rng.choice(_PERSONA_TOLD).format(name)))
    if rng.random() < 0.4:
        pairs.append(say(rng, rng.choice([FEELINGS, PARTINGS])))
    return rng.choice(_PERSONA).format(name), pairs


def _brief(rng: random.Random) -> tuple[str, list[Pair]]:
    pairs: list[Pair] = []
    for _ in range(rng.choice([1, 2, 3])):
        if rng.random() < 0.5:
            country, city = rng.choice(CAPITALS)
            pairs.append((f"What is the capital of {country}?", city + "."))
        else:
            first, second = rng.choice(OPPOSITES)
            pairs.append((f"What is the opposite of {first}?", second.capitalize() + "."))
    return rng.choice(
        [
            "Answer with one word.",
            "Answer briefly.",
            "Be brief.",
            "Use as few words as possible.",
            "Give one-word answers.",
        ]
    ), pairs


def _ending(rng: random.Random) -> tuple[str, list[Pair]]:
    ending = rng.choice(_ENDINGS)
    pairs = [rng.choice([answer, skill])(rng) for _ in range(rng.choice([1, 2]))]
    system = rng.choice(
        [
            'End every answer with "{}"',
            'Always finish with the words "{}"',
            'Say "{}" at the end of each reply.',
        ]
    )
    return system.format(ending), [(asked, f"{reply} {ending}") for asked, reply in pairs]


def _known(rng: random.Random) -> tuple[str, list[Pair]]:
    told = rng.sample(_KNOWN, rng.choice([1, 2]))
    numbers = [str(rng.randint(2, 60)) for _ in told]
    system = " ".join(
        [
            "You are a helpful assistant.",
            *(fact.format(n) for (fact, _, _), n in zip(told, numbers, strict=True)),
        ]
    )
    pairs = [(asked, reply.format(n)) for (_, asked, reply), n in zip(told, numbers, strict=True)]
    rng.shuffle(pairs)
    return system, pairs


def _user_name(rng: random.Random) -> tuple[str, list[Pair]]:
    name = first_name(rng)
    system = rng.choice(
        [
            "The user's name is {}.",
            "You are talking to {}.",
            "You are a helpful assistant. The user is called {}.",
        ]
    ).format(name)
    colour = rng.choice(words.COLOURS)
    pairs = [
        (
            rng.choice(["Hi!", "Hello!", "Hey there!"]),
            rng.choice([f"Hello, {name}! How can I help you?", f"Hi {name}! What can I do for you?"]),
        )
    ]
    pairs.append(
        rng.choice(
            [
                ("What is my name?", f"Your name is {name}."),
                ("Do you know my name?", f"Yes, your name is {name}."),
                (f"I like {colour}.", f"{colour.capitalize()} is a lovely colour, {name}."),
            ]
        )
    )
    return system, pairs
