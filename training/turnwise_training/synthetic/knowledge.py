"""Single exchanges of simple knowledge, and short stories and sentences made from templates."""

import random

from turnwise_training.synthetic.phrases import Pair, Phrases
from turnwise_training.synthetic.words import ANIMALS, COLOURS, FOODS, THINGS, article, first_name

_KNOWLEDGE = Phrases("knowledge")
_DEFINITIONS = _KNOWLEDGE.answers("definitions")
_ANSWERS = _KNOWLEDGE.answers("answers")
_DEFINED = _KNOWLEDGE.lines("defined")
_PLACES = _KNOWLEDGE.lines("places")
_TRAITS = _KNOWLEDGE.lines("traits")
_STORY_ASKED = _KNOWLEDGE.lines("story_asked")
_PROBLEMS = _KNOWLEDGE.rows("problems")
_ENDINGS = _KNOWLEDGE.lines("endings")
_BARE = ("rain", "snow", "honey", "bread", "cheese", "winter", "summer", "gravity", "democracy")
_UNIQUE = ("sun", "moon", "internet")


def define(rng: random.Random) -> Pair:
    """Return a question for a simple thing and its definition."""
    thing, meaning = rng.choice(_DEFINITIONS)
    named = thing if thing in _BARE else f"the {thing}" if thing in _UNIQUE else article(thing)
    return rng.choice(_DEFINED).format(named), meaning


def answer(rng: random.Random) -> Pair:
    """Return a question of common knowledge and its answer."""
    return rng.choice(_ANSWERS)


def story(rng: random.Random) -> Pair:
    """Return a request for a story and a story of five or six sentences."""
    hero, other = rng.sample(ANIMALS, 2)
    values = {
        "hero": hero,
        "other": other,
        "an_other": article(other),
        "An_other": article(other).capitalize(),
        "thing": rng.choice(THINGS),
        "colour": rng.choice(COLOURS),
        "food": rng.choice(FOODS),
    }
    named = rng.random() < 0.4
    name = first_name(rng)
    trait = rng.choice(_TRAITS)
    called = f"{hero} named {name}" if named else hero
    opening = f"Once upon a time there was {article(trait)} {called} who lived {rng.choice(_PLACES)}."
    sentences = [part.format(**values) for part in (*rng.choice(_PROBLEMS), rng.choice(_ENDINGS))]
    topic = rng.choice(
        [article(hero), article(hero), f"{article(hero)} and {article(other)}", f"{article(trait)} {hero}"]
    )
    if named and rng.random() < 0.5:
        topic = f"{article(hero)} named {name}"
    if rng.random() < 0.2:
        return rng.choice(
            [
                "Tell me a story.",
                "Can you tell me a story?",
                "I want to hear a story.",
                "Please tell me a short story.",
                "Tell me a bedtime story.",
            ]
        ), " ".join([opening, *sentences])
    return rng.choice(_STORY_ASKED).format(topic), " ".join([opening, *sentences])


def sentence(rng: random.Random) -> Pair:
    """Return a request for a sentence and the sentence."""
    thing = rng.choice([*ANIMALS, *THINGS])
    made = rng.choice(
        [
            f"The {thing} is {rng.choice(COLOURS)}.",
            f"There is {article(thing)} in the garden.",
            f"I saw {article(thing)} on my way to school.",
            f"My sister drew {article(thing)} with a pencil.",
            f"We found {article(thing)} near the river.",
            f"The old man told us about the {thing}.",
        ]
    )
    asked = rng.choice(
        [
            "Write a sentence about {}.",
            'Make a sentence with the word "{}".',
            "Use the word {} in a sentence.",
            "Write a sentence with the word {}.",
            "Give me a sentence about {}.",
        ]
    )
    return asked.format(article(thing) if "about" in asked else thing), made


def answer_anything(rng: random.Random) -> Pair:
    """Return one exchange of any kind here."""
    return rng.choices([define, answer, story, sentence], weights=[3, 4, 4, 1])[0](rng)
