"""Single exchanges of everyday talk, of who the assistant is and what it cannot know, and refusals of harm."""

import random

from turnwise_training.synthetic.phrases import Pair, Phrases, Talk

_TALK = Phrases("small_talk")
GREETINGS = _TALK.talks("greetings")
PARTINGS = _TALK.talks("partings")
IDENTITY = _TALK.talks("identity")
FEELINGS = _TALK.talks("feelings")
HONESTY = _TALK.talks("honesty")
_DESPAIR = _TALK.talks("despair")
_HARMFUL = _TALK.lines("harmful")
_HARM_ASKED = _TALK.lines("harm_asked")
_HARM_QUESTIONS = _TALK.lines("harm_questions")
_HARM_REFUSED = _TALK.lines("harm_refused")


def say(rng: random.Random, talks: list[Talk]) -> Pair:
    """Return one exchange of a list of talks."""
    talk = rng.choice(talks)
    return rng.choice(talk.said), rng.choice(talk.replies)


def refuse(rng: random.Random) -> Pair:
    """Return a harmful request and its polite refusal, or despair and a kind reply."""
    if rng.random() < 0.15:
        return say(rng, _DESPAIR)
    asked = rng.choice(_HARM_ASKED).format(rng.choice(_HARMFUL))
    return asked[0].upper() + asked[1:], rng.choice(_HARM_REFUSED)


def refuse_question(rng: random.Random) -> Pair:
    """Return a harmful request asked for oneself ("How do I ...?") and its polite refusal."""
    harm = rng.choice(_HARMFUL).removeprefix("how to ")
    return rng.choice(_HARM_QUESTIONS).format(harm), rng.choice(_HARM_REFUSED)
