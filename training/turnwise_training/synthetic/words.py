"""Words the written demonstrations draw from, and names nobody has."""

import random

from turnwise_training.synthetic.phrases import Phrases

_WORDS = Phrases("words")
FIRST_NAMES = _WORDS.lines("first_names")
COLOURS = _WORDS.lines("colours")
FOODS = _WORDS.lines("foods")
CITIES = _WORDS.lines("cities")
PET_KINDS = _WORDS.lines("pet_kinds")
PET_NAMES = _WORDS.lines("pet_names")
JOBS = _WORDS.lines("jobs")
HOBBIES = _WORDS.lines("hobbies")
ANIMALS = _WORDS.lines("animals")
THINGS = _WORDS.lines("things")
NUMBER_WORDS = _WORDS.lines("number_words")
DAYS = _WORDS.lines("days")
MONTHS = _WORDS.lines("months")
_ONSETS = _WORDS.lines("onsets")
_VOWELS = _WORDS.lines("vowels")
_CODAS = _WORDS.lines("codas")


def first_name(rng: random.Random) -> str:
    """Return a first name; almost half are made up, so that a name must be copied and cannot be known."""
    if rng.random() < 0.55:
        return rng.choice(FIRST_NAMES)
    syllables = rng.choice([1, 2, 2, 2, 3])
    name = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
    return (name if len(name) > 2 else name + "n").capitalize()


def article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
