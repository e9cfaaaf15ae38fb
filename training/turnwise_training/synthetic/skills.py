"""Single exchanges whose right answer a program knows: sums, counting, order, opposites, repetition."""

import random
from collections.abc import Callable

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

Pair = tuple[str, str]

OPPOSITES = """hot cold|big small|tall short|fast slow|happy sad|day night|up down|left right|open closed|full empty|hard soft|
old young|new old|rich poor|light dark|early late|high low|long short|strong weak|wet dry|clean dirty|good bad|loud quiet|
near far|thick thin|wide narrow|sweet sour|begin end|buy sell|push pull|give take|love hate|win lose|true false|always never|
inside outside|above below|before after|first last|easy difficult|cheap expensive|safe dangerous|heavy light|kind cruel|
brave afraid|awake asleep|smooth rough|deep shallow|sharp blunt|summer winter|north south|east west|friend enemy|
question answer|remember forget|arrive leave|laugh cry|alive dead|black white|yes no""".replace(
    "\n", ""
).split("|")
SOUNDS = "dog woof|cat meow|cow moo|sheep baa|duck quack|pig oink|horse neigh|lion roar|bee buzz|hen cluck|frog croak|owl hoot|mouse squeak|wolf howl".split(
    "|"
)
PLURALS = """cat cats|dog dogs|box boxes|child children|mouse mice|foot feet|tooth teeth|man men|woman women|baby babies|city cities|
leaf leaves|knife knives|fish fish|sheep sheep|bus buses|goose geese|house houses|story stories|book books|apple apples""".replace(
    "\n", ""
).split("|")
PAST = """go went|see saw|eat ate|run ran|come came|take took|give gave|find found|make made|write wrote|read read|sing sang|
swim swam|buy bought|think thought|walk walked|play played|jump jumped|speak spoke|sleep slept|drink drank|know knew""".replace(
    "\n", ""
).split("|")
CAPITALS = """France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|England London|Ireland Dublin|Austria Vienna|
Greece Athens|Poland Warsaw|Norway Oslo|Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Hungary Budapest|Belgium Brussels|
the Netherlands Amsterdam|Switzerland Bern|Russia Moscow|Turkey Ankara|Egypt Cairo|Kenya Nairobi|Nigeria Abuja|Ghana Accra|
India New_Delhi|China Beijing|Japan Tokyo|South Korea Seoul|Thailand Bangkok|Vietnam Hanoi|Indonesia Jakarta|Australia Canberra|
Canada Ottawa|the United States Washington|Mexico Mexico_City|Brazil Brasilia|Argentina Buenos_Aires|Chile Santiago|Peru Lima|
Cuba Havana|Iceland Reykjavik|Ukraine Kyiv|Romania Bucharest|Bulgaria Sofia|Croatia Zagreb|Morocco Rabat""".replace(
    "\n", ""
).split("|")
SIZES = "ant|mouse|cat|dog|sheep|lion|horse|elephant|whale".split("|")
COLOUR_OF = "grass green|snow white|blood red|the sky blue|a banana yellow|a carrot orange|coal black|a lemon yellow|a tomato red|milk white|the sun yellow|a strawberry red".split(
    "|"
)


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
    pair = rng.choice(OPPOSITES).split()
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
    return rng.choice(
        [
            ("How many days are in a week?", "There are seven days in a week."),
            (
                "Name the days of the week.",
                "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
            ),
            ("How many months are in a year?", "There are twelve months in a year."),
            (
                "Name the months.",
                "The months are January, February, March, April, May, June, July, August, September, October, November and December.",
            ),
            ("How many hours are in a day?", "There are 24 hours in a day."),
            ("How many minutes are in an hour?", "There are 60 minutes in an hour."),
            ("What are the four seasons?", "The four seasons are spring, summer, autumn and winter."),
            ("What is the first month of the year?", "The first month of the year is January."),
            ("What is the last month of the year?", "The last month of the year is December."),
        ]
    )


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
    country, _, city = rng.choice(CAPITALS).strip().rpartition(" ")
    city = city.replace("_", " ")
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
    animal, noise = rng.choice(SOUNDS).split()
    return rng.choice(
        [f"What sound does a {animal} make?", f"What does a {animal} say?"]
    ), f'A {animal} says "{noise}".'


def grammar(rng: random.Random) -> Pair:
    if rng.random() < 0.5:
        one, many = rng.choice(PLURALS).split()
        return rng.choice(
            [f"What is the plural of {one}?", f'What\'s the plural of "{one}"?']
        ), f'The plural of "{one}" is "{many}".'
    now, then = rng.choice(PAST).split()
    return rng.choice(
        [f"What is the past tense of {now}?", f'What is the past form of "{now}"?']
    ), f'The past tense of "{now}" is "{then}".'


def compare_sizes(rng: random.Random) -> Pair:
    i, j = rng.sample(range(len(SIZES)), 2)
    word = rng.choice(["bigger", "smaller"])
    answer, other = (max(i, j), min(i, j)) if word == "bigger" else (min(i, j), max(i, j))
    return (
        f"Which is {word}, {article(SIZES[i])} or {article(SIZES[j])}?",
        f"{article(SIZES[answer]).capitalize()} is {word} than {article(SIZES[other])}.",
    )


def colour_of(rng: random.Random) -> Pair:
    thing, _, colour = rng.choice(COLOUR_OF).rpartition(" ")
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
