"""Single exchanges whose right answer a program knows: sums, counting, order, opposites, repetition."""

import random
from collections.abc import Callable

from turnwise_training.synthetic.phrases import Pair, Phrases
from turnwise_training.synthetic.words import (
    ANIMALS,
    COLOURS,
    DAYS,
    MONTHS,
    NUMBER_WORDS,
    THINGS,
    article,
    first_name,
)

_SKILLS = Phrases("skills")
OPPOSITES = _SKILLS.rows("opposites")
CAPITALS = _SKILLS.rows("capitals")
_SOUNDS = _SKILLS.rows("sounds")
_PLURALS = _SKILLS.rows("plurals")
_PAST = _SKILLS.rows("past")
_CALENDAR = _SKILLS.answers("calendar")
_SIZES = _SKILLS.lines("sizes")
_COLOUR_OF = _SKILLS.rows("colour_of")


def add(rng: random.Random) -> Pair:
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    asked = rng.choice(
        [
            "What is {} + {}?",
            "What is {} plus {}?",
            "{} + {} = ?",
            "How much is {} plus {}?",
            "Add {} and {}.",
            "{} plus {}?",
            "Can you add {} and {}?",
            "What's {} + {}?",
            "{}+{}",
        ]
    )
    return asked.format(a, b), rng.choice(
        [f"{a} plus {b} is {a + b}.", f"{a} + {b} = {a + b}.", f"The answer is {a + b}."]
    )


def subtract(rng: random.Random) -> Pair:
    a = rng.randint(1, 20)
    b = rng.randint(0, a)
    asked = rng.choice(
        [
            "What is {} - {}?",
            "What is {} minus {}?",
            "{} - {} = ?",
            "How much is {} minus {}?",
            "{} minus {}?",
            "What's {} - {}?",
        ]
    )
    return asked.format(a, b), rng.choice(
        [f"{a} minus {b} is {a - b}.", f"{a} - {b} = {a - b}.", f"The answer is {a - b}."]
    )


def multiply(rng: random.Random) -> Pair:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    asked = rng.choice(
        [
            "What is {} times {}?",
            "What is {} x {}?",
            "{} times {}?",
            "How much is {} times {}?",
            "Multiply {} by {}.",
        ]
    )
    return asked.format(a, b), rng.choice([f"{a} times {b} is {a * b}.", f"The answer is {a * b}."])


def count(rng: random.Random) -> Pair:
    last = rng.randint(3, 20)
    first = rng.choice([1, 1, 1, rng.randint(1, last - 1)])
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    asked = (
        rng.choice(["Count from {} to {}.", "Can you count from {} to {}?", "Please count from {} to {}."])
        if first > 1 or rng.random() < 0.5
        else rng.choice(["Count to {1}.", "Can you count to {1}?", "Please count up to {1}."])
    )
    return asked.format(first, last), f"{numbers}."


def compare_numbers(rng: random.Random) -> Pair:
    a, b = rng.sample(range(100), 2)
    word, pick = rng.choice([("bigger", max), ("larger", max), ("smaller", min)])
    return f"Which number is {word}, {a} or {b}?", f"{pick(a, b)} is {word} than {a + b - pick(a, b)}."


def number_word(rng: random.Random) -> Pair:
    n = rng.randrange(len(NUMBER_WORDS))
    if rng.random() < 0.5:
        return f"How do you write {n} as a word?", f'You write {n} as "{NUMBER_WORDS[n]}".'
    return f"What comes after {n}?", f"After {n} comes {n + 1}."


def opposite(rng: random.Random) -> Pair:
    pair = list(rng.choice(OPPOSITES))
    rng.shuffle(pair)
    asked = rng.choice(
        [
            "What is the opposite of {}?",
            "What's the opposite of {}?",
            "Tell me the opposite of {}.",
            "The opposite of {}?",
            'Give me the opposite of "{}".',
        ]
    )
    return asked.format(pair[0]), rng.choice(
        [f"The opposite of {pair[0]} is {pair[1]}.", f'The opposite of "{pair[0]}" is "{pair[1]}".']
    )


def neighbour_in_time(rng: random.Random) -> Pair:
    names, kind = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    i = rng.randrange(len(names))
    step, word = rng.choice([(1, "after"), (-1, "before")])
    other = names[(i + step) % len(names)]
    asked = rng.choice(
        [
            f"Which {kind} comes {word} {names[i]}?",
            f"What {kind} is {word} {names[i]}?",
            f"What comes {word} {names[i]}?",
        ]
    )
    return asked, rng.choice(
        [f"{other} comes {word} {names[i]}.", f"The {kind} {word} {names[i]} is {other}."]
    )


def calendar(rng: random.Random) -> Pair:
    return rng.choice(_CALENDAR)


def sort_numbers(rng: random.Random) -> Pair:
    numbers = rng.sample(range(1, 50), rng.choice([3, 3, 4, 5]))
    asked = rng.choice(
        [
            "Sort these numbers: {}.",
            "Put these numbers in order: {}.",
            "Sort {} from smallest to largest.",
            "Order these numbers: {}.",
        ]
    )
    return asked.format(", ".join(map(str, numbers))), ", ".join(map(str, sorted(numbers))) + "."


def sort_words(rng: random.Random) -> Pair:
    chosen = rng.sample(rng.choice([ANIMALS, THINGS, COLOURS]), 3)
    asked = rng.choice(["Sort these words alphabetically: {}.", "Put these words in alphabetical order: {}."])
    return asked.format(", ".join(chosen)), ", ".join(sorted(chosen)) + "."


def repeat(rng: random.Random) -> Pair:
    said = rng.choice(
        [
            rng.choice(THINGS),
            rng.choice(ANIMALS),
            rng.choice(COLOURS),
            first_name(rng),
            f"{rng.choice(COLOURS)} {rng.choice(THINGS)}",
            f"I like my {rng.choice(THINGS)}",
            f"The {rng.choice(ANIMALS)} is {rng.choice(COLOURS)}",
        ]
    )
    asked = rng.choice(
        [
            'Say "{}".',
            "Repeat after me: {}",
            'Please say "{}".',
            "Repeat the word {}.",
            'Say the word "{}".',
            'Write "{}".',
            "Can you say {}?",
            "Repeat: {}",
        ]
    )
    return asked.format(said), said + rng.choice(["", ".", "."])


def repeat_times(rng: random.Random) -> Pair:
    word, times = rng.choice([*THINGS, *ANIMALS, *COLOURS]), rng.choice([2, 3, 4])
    asked = rng.choice(['Say "{}" {} times.', "Repeat the word {} {} times.", "Write {} {} times."])
    return asked.format(word, NUMBER_WORDS[times]), ", ".join([word] * times) + "."


def choose(rng: random.Random) -> Pair:
    a, b = rng.sample(rng.choice([ANIMALS, THINGS, COLOURS]), 2)
    asked = rng.choice(
        ["Which word comes first in this list: {0}, {1}?", "What is the first word here: {0}, {1}?"]
    )
    if rng.random() < 0.5:
        return asked.format(a, b), f"The first word is {a}."
    return f"What is the last word here: {a}, {b}?", f"The last word is {b}."


def capital(rng: random.Random) -> Pair:
    country, city = rng.choice(CAPITALS)
    asked = rng.choice(
        [
            "What is the capital of {}?",
            "What's the capital of {}?",
            "Tell me the capital of {}.",
            "Which city is the capital of {}?",
            "Do you know the capital of {}?",
        ]
    )
    return asked.format(country), f"The capital of {country} is {city}."


def sound(rng: random.Random) -> Pair:
    animal, noise = rng.choice(_SOUNDS)
    return rng.choice(
        [f"What sound does a {animal} make?", f"What does a {animal} say?"]
    ), f'A {animal} says "{noise}".'


def grammar(rng: random.Random) -> Pair:
    if rng.random() < 0.5:
        one, many = rng.choice(_PLURALS)
        return rng.choice(
            [f"What is the plural of {one}?", f'What\'s the plural of "{one}"?']
        ), f'The plural of "{one}" is "{many}".'
    now, then = rng.choice(_PAST)
    return rng.choice(
        [f"What is the past tense of {now}?", f'What is the past form of "{now}"?']
    ), f'The past tense of "{now}" is "{then}".'


def compare_sizes(rng: random.Random) -> Pair:
    i, j = rng.sample(range(len(_SIZES)), 2)
    word = rng.choice(["bigger", "smaller"])
    answer, other = (max(i, j), min(i, j)) if word == "bigger" else (min(i, j), max(i, j))
    return (
        f"Which is {word}, {article(_SIZES[i])} or {article(_SIZES[j])}?",
        f"{article(_SIZES[answer]).capitalize()} is {word} than {article(_SIZES[other])}.",
    )


def colour_of(rng: random.Random) -> Pair:
    thing, colour = rng.choice(_COLOUR_OF)
    return rng.choice(
        [f"What colour is {thing}?", f"What color is {thing}?"]
    ), f"{thing[0].upper() + thing[1:]} is {colour}."


def list_some(rng: random.Random) -> Pair:
    kind, values = rng.choice(
        [("animals", ANIMALS), ("colours", COLOURS), ("things", THINGS), ("colors", COLOURS)]
    )
    number = rng.choice([2, 3, 3, 4, 5])
    chosen = rng.sample(values, number)
    asked = rng.choice(
        ["Name {} {}.", "Tell me {} {}.", "Give me {} {}.", "List {} {}.", "Can you name {} {}?"]
    )
    return asked.format(
        NUMBER_WORDS[number], kind
    ), f"{', '.join(chosen[:-1]).capitalize()} and {chosen[-1]}."


SKILLS: list[Callable[[random.Random], Pair]] = [
    add,
    add,
    subtract,
    multiply,
    count,
    compare_numbers,
    number_word,
    opposite,
    opposite,
    neighbour_in_time,
    calendar,
    sort_numbers,
    sort_words,
    repeat,
    repeat,
    repeat_times,
    choose,
    capital,
    capital,
    sound,
    grammar,
    compare_sizes,
    colour_of,
    list_some,
    list_some,
]


def skill(rng: random.Random) -> Pair:
    """Return one exchange of any skill."""
    return rng.choice(SKILLS)(rng)
