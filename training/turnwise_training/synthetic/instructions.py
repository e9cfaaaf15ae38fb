"""Dialogues whose system message changes how the assistant answers: a name, a mood, a fixed ending, brevity."""

import random

from turnwise_training.synthetic import words
from turnwise_training.synthetic.knowledge import answer
from turnwise_training.synthetic.skills import CAPITALS, OPPOSITES, skill
from turnwise_training.synthetic.small_talk import FEELINGS, GREETINGS, PARTINGS, say
from turnwise_training.synthetic.words import first_name

Pair = tuple[str, str]

PLAIN = """You are a helpful assistant.|You are a friendly assistant.|You are a helpful AI assistant. Answer the user's questions.|
You are a polite and helpful assistant.|Be helpful and kind.|You are Turnwise, a helpful assistant.|You are an assistant. Be honest.""".replace(
    "\n", ""
).split("|")
PERSONA = (
    "Your name is {}.",
    "You are {}, a helpful assistant.",
    "You are called {}.",
    "You are an assistant named {}. Be friendly.",
    "Your name is {}. You help the user.",
    "Act as {}, a friendly assistant.",
)
PERSONA_ASKED = (
    "What is your name?",
    "What's your name?",
    "Who are you?",
    "Tell me your name.",
    "What should I call you?",
    "How are you called?",
    "Hi, who are you?",
    "Hello! What is your name?",
)
PERSONA_TOLD = (
    "My name is {}. How can I help you?",
    "I'm {}.",
    "You can call me {}.",
    "I am {}, your assistant.",
    "My name is {}.",
)
KNOWN = (
    (
        "The shop opens at {} in the morning.",
        "When does the shop open?",
        "The shop opens at {} in the morning.",
    ),
    ("The ticket costs {} dollars.", "How much is the ticket?", "The ticket costs {} dollars."),
    ("The meeting is in room {}.", "Where is the meeting?", "The meeting is in room {}."),
    ("The bus leaves from stop {}.", "Which stop does the bus leave from?", "The bus leaves from stop {}."),
    ("The user is {} years old.", "How old am I?", "You are {} years old."),
)
ENDINGS = (
    "Have a nice day!",
    "Stay curious!",
    "Take care!",
    "Thank you for asking.",
    "Best wishes!",
    "See you soon!",
)


def instructed_dialogue(rng: random.Random) -> tuple[str, list[Pair]]:
    """Return a system message and the exchanges that follow it."""
    return rng.choice([_persona, _persona, _brief, _ending, _known, _user_name])(rng)


def _persona(rng: random.Random) -> tuple[str, list[Pair]]:
    name = first_name(rng)
    pairs = [say(rng, GREETINGS)] if rng.random() < 0.4 else []
    pairs.append((rng.choice(PERSONA_ASKED), rng.choice(PERSONA_TOLD).format(name)))
    if rng.random() < 0.4:
        pairs.append(say(rng, rng.choice([FEELINGS, PARTINGS])))
    return rng.choice(PERSONA).format(name), pairs


def _brief(rng: random.Random) -> tuple[str, list[Pair]]:
    pairs: list[Pair] = []
    for _ in range(rng.choice([1, 2, 3])):
        if rng.random() < 0.5:
            country, _, city = rng.choice(CAPITALS).strip().rpartition(" ")
            pairs.append((f"What is the capital of {country}?", city.replace("_", " ") + "."))
        else:
            first, second = rng.choice(OPPOSITES).split()
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
    ending = rng.choice(ENDINGS)
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
    told = rng.sample(KNOWN, rng.choice([1, 2]))
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
