"""Dialogues in which the user tells facts and asks for them later: the answer must be copied from the dialogue."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from turnwise_training.synthetic import words
from turnwise_training.synthetic.words import article, first_name

Pair = tuple[str, str]
"""What the user says and what the assistant replies."""

NAME_TOLD = """My name is {}.|I'm {}.|I am {}.|Call me {}.|You can call me {}.|My name's {}.|Hi, I'm {}.|Hello, my name is {}.|
Hi! My name is {}.|Hey, I'm {}.|Hello! I am {}.|Hi there, I'm {}.|Good morning, I'm {}.|Please call me {}.|People call me {}.|
This is {}.|It's {} here.|Hello, I'm {}. How are you?|Hi, my name is {}. Nice to meet you.|Hi, I'm {}. What can you do?|
I'm {}, by the way.|Just so you know, my name is {}.|Hi, {} here.|Everyone calls me {}.|my name is {}|i'm {}|
Hey there! My name is {}.|Hello. My name is {}|My name is {}|My name is {}!|Hi! I'm {}!|Good evening. My name is {}.|
I'd like to introduce myself. I'm {}.|Hi, my name is {}.|Hello, I'm {}.|Remember that my name is {}.|
Please remember this: my name is {}.""".replace("\n", "").split("|")
NAME_GREETED = """Nice to meet you, {}! How can I help you today?|Hello, {}! It's nice to meet you.|Hi {}! What can I do for you?|
It's a pleasure to meet you, {}.|Nice to meet you, {}! I'm the Turnwise assistant.|Hello {}! How can I help you?|
Hi, {}! What would you like to talk about?|Welcome, {}! What can I help you with?|Nice to meet you, {}.|
Great to meet you, {}! How are you today?|Thank you, {}. I will remember your name.|Hi {}, nice to meet you!""".replace(
    "\n", ""
).split("|")
NAME_ASKED = """What is my name?|What's my name?|Do you remember my name?|Do you remember what I'm called?|Who am I?|
Can you tell me my name?|What did I say my name was?|Do you know my name?|Tell me my name.|What am I called?|
Say my name.|Can you remember my name?|What was my name again?|Do you still know my name?|So what's my name?|
What is my name again?|Please tell me my name.|Which name did I give you?|what is my name|whats my name?|
Did you catch my name?|Could you say my name?|Quick test: what's my name?|Now, what is my name?|And what is my name?|
Do you know who I am?|How do people call me?|Remind me, what is my name?""".replace("\n", "").split("|")
NAME_RECALLED = """Your name is {}.|Your name is {}.|Your name is {}.|You told me that your name is {}.|You are {}.|
Yes, your name is {}.|You said your name is {}.|Of course! Your name is {}.|Your name is {}, of course.|
You're {}!|I remember: your name is {}.|Yes, you are {}.""".replace("\n", "").split("|")
NAME_UNKNOWN = """I don't know your name yet. What is it?|You haven't told me your name. What should I call you?|
I don't know. You have not told me your name yet.|I'm afraid I don't know your name. What is it?""".replace(
    "\n", ""
).split("|")


@dataclass(frozen=True)
class Fact:
    """A kind of fact: how it is told, noted, asked for and recalled; `{}` is the value."""

    draw: Callable[[random.Random], str]
    told: tuple[str, ...]
    noted: tuple[str, ...]
    asked: tuple[str, ...]
    recalled: tuple[str, ...]


def _facts() -> dict[str, Fact]:
    def one_of(values: list[str]) -> Callable[[random.Random], str]:
        return lambda rng: rng.choice(values)

    return {
        "colour": Fact(
            one_of(words.COLOURS),
            (
                "My favourite colour is {}.",
                "My favorite color is {}.",
                "I love the colour {}.",
                "I like {} more than any other colour.",
            ),
            ("{} is a lovely colour.", "I'll remember that you like {}.", "Nice! {} is a beautiful colour."),
            (
                "What is my favourite colour?",
                "What's my favorite color?",
                "Which colour do I like?",
                "Do you remember my favourite colour?",
            ),
            ("Your favourite colour is {}.", "You said your favourite colour is {}.", "You like {} best."),
        ),
        "food": Fact(
            one_of(words.FOODS),
            ("My favourite food is {}.", "I really like {}.", "I love eating {}.", "My favorite food is {}."),
            (
                "Mmm, {}! That is a good choice.",
                "Good choice! Many people like {}.",
                "I'll remember that you like {}.",
            ),
            (
                "What is my favourite food?",
                "What do I like to eat?",
                "What food did I say I like?",
                "What's my favorite food?",
            ),
            ("Your favourite food is {}.", "You like {}.", "You told me that you like {}."),
        ),
        "city": Fact(
            one_of(words.CITIES),
            ("I live in {}.", "I'm from {}.", "My home is in {}.", "I come from {}."),
            (
                "{} is an interesting place.",
                "How nice! What do you like about {}?",
                "I have read about {}. It sounds like a good place to live.",
            ),
            (
                "Where do I live?",
                "Where am I from?",
                "Which city do I live in?",
                "Do you remember where I live?",
            ),
            ("You live in {}.", "You said that you live in {}.", "Your home is in {}."),
        ),
        "pet": Fact(
            lambda rng: rng.choice([rng.choice(words.PET_NAMES), first_name(rng)]),
            (
                "My {pet} is called {}.",
                "I have a {pet} named {}.",
                "My {pet}'s name is {}.",
                "I have a {pet}. Its name is {}.",
            ),
            (
                "{} is a great name for a {pet}!",
                "What a nice name! {} must be a lovely {pet}.",
                "How sweet! Say hello to {} for me.",
            ),
            (
                "What is my {pet}'s name?",
                "What is my {pet} called?",
                "Do you remember the name of my {pet}?",
                "What's the name of my {pet}?",
            ),
            ("Your {pet} is called {}.", "Your {pet}'s name is {}.", "The name of your {pet} is {}."),
        ),
        "age": Fact(
            lambda rng: str(rng.randint(7, 89)),
            ("I am {} years old.", "I'm {} years old.", "I just turned {}.", "My age is {}."),
            ("Thank you for telling me. {} is a fine age.", "I'll remember that you are {} years old."),
            ("How old am I?", "What is my age?", "Do you remember how old I am?"),
            ("You are {} years old.", "You said that you are {} years old."),
        ),
        "job": Fact(
            one_of(words.JOBS),
            ("I work as {a}.", "I'm {a}.", "I am {a}.", "My job: I'm {a}."),
            (
                "That must be interesting work. What do you like about being {a}?",
                "Being {a} sounds like a good job.",
            ),
            (
                "What is my job?",
                "What do I do for work?",
                "What's my job?",
                "Do you remember what I do for a living?",
            ),
            ("You are {a}.", "You told me that you are {a}.", "You work as {a}."),
        ),
        "hobby": Fact(
            one_of(words.HOBBIES),
            ("My hobby is {}.", "In my free time I like {}.", "I enjoy {}.", "My favourite hobby is {}."),
            (
                "{} sounds like fun!",
                "That's a nice hobby. How often do you do it?",
                "I'll remember that you enjoy {}.",
            ),
            ("What is my hobby?", "What do I like to do in my free time?", "What hobby did I mention?"),
            ("Your hobby is {}.", "You enjoy {}.", "You told me that you enjoy {}."),
        ),
        "friend": Fact(
            first_name,
            ("My {kin}'s name is {}.", "My {kin} is called {}.", "I have a {kin} named {}."),
            ("{} is a nice name.", "I'll remember that your {kin} is called {}.", "Tell me more about {}."),
            ("What is my {kin}'s name?", "What is my {kin} called?", "Do you remember my {kin}'s name?"),
            ("Your {kin}'s name is {}.", "Your {kin} is called {}."),
        ),
    }


FACTS = _facts()
KIN = (
    "sister",
    "brother",
    "friend",
    "mother",
    "father",
    "cousin",
    "neighbour",
    "teacher",
    "boss",
    "son",
    "daughter",
)


def _fill(template: str, value: str, extra: dict[str, str]) -> str:
    text = template.format(value, a=article(value), **extra)
    return text[0].upper() + text[1:]


def name_pairs(rng: random.Random, name: str) -> tuple[Pair, Pair]:
    """Return the exchange that tells a name and the one that asks for it."""
    told = (rng.choice(NAME_TOLD).format(name), rng.choice(NAME_GREETED).format(name))
    return told, (rng.choice(NAME_ASKED), rng.choice(NAME_RECALLED).format(name))


def fact_pairs(rng: random.Random, kind: str) -> tuple[Pair, Pair]:
    """Return the exchange that tells a fact and the one that asks for it."""
    fact = FACTS[kind]
    value = fact.draw(rng)
    extra = {"pet": rng.choice(words.PET_KINDS), "kin": rng.choice(KIN)}
    told, noted, asked, recalled = (
        _fill(rng.choice(part), value, extra) for part in (fact.told, fact.noted, fact.asked, fact.recalled)
    )
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
    kinds = rng.sample(sorted(FACTS), rng.choice([1, 1, 2, 2, 3]))
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
