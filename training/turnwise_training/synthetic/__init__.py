"""Demonstrations our own programs write: thousands of short dialogues, the same for the same seed."""

import random
from collections.abc import Callable, Iterator

from turnwise_training.data import Conversation, Message
from turnwise_training.errors import ConfigurationError
from turnwise_training.synthetic.instructions import PLAIN, instructed_dialogue
from turnwise_training.synthetic.knowledge import answer, answer_anything
from turnwise_training.synthetic.memory import fact_dialogue, name_dialogue, unknown_dialogue
from turnwise_training.synthetic.phrases import Pair, Talk
from turnwise_training.synthetic.skills import add, opposite, skill, subtract
from turnwise_training.synthetic.small_talk import (
    FEELINGS,
    GREETINGS,
    HONESTY,
    IDENTITY,
    PARTINGS,
    refuse,
    refuse_question,
    say,
)

Writer = Callable[[random.Random], tuple[str | None, list[Pair]]]

PLAIN_SYSTEM_SHARE = 0.15


def _about(talks: list[Talk]) -> Callable[[random.Random], Pair]:
    return lambda rng: say(rng, talks)


SINGLE = [
    skill,
    skill,
    answer_anything,
    answer_anything,
    *map(_about, (FEELINGS, IDENTITY, GREETINGS, HONESTY)),
]
"""Exchanges that lean on no earlier one."""


def _single(rng: random.Random) -> Pair:
    return rng.choice(SINGLE)(rng)


def _remembering(rng: random.Random) -> tuple[str | None, list[Pair]]:
    kind = rng.choices([name_dialogue, fact_dialogue, unknown_dialogue], weights=[6, 3, 1])[0]
    return _plain_system(rng), kind(rng, _single)


def _talking(rng: random.Random) -> tuple[str | None, list[Pair]]:
    pairs = [say(rng, GREETINGS)] if rng.random() < 0.6 else []
    pairs += [say(rng, rng.choice([FEELINGS, FEELINGS, IDENTITY])) for _ in range(rng.choice([0, 1, 1, 2]))]
    if rng.random() < 0.4 or not pairs:
        pairs.append(say(rng, PARTINGS))
    return _plain_system(rng), pairs


def _answering(rng: random.Random) -> tuple[str | None, list[Pair]]:
    pairs = [say(rng, GREETINGS)] if rng.random() < 0.15 else []
    pairs += [rng.choice([skill, answer_anything])(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.1:
        pairs.append(say(rng, PARTINGS))
    return _plain_system(rng), pairs


def _practising(rng: random.Random) -> tuple[str | None, list[Pair]]:
    kinds = [add, add, subtract, opposite, opposite, refuse_question, refuse_question, answer]
    return _plain_system(rng), [rng.choice(kinds)(rng) for _ in range(rng.choice([1, 2, 3, 4]))]


def _being_honest(rng: random.Random) -> tuple[str | None, list[Pair]]:
    pairs = [rng.choice([_about(HONESTY), _about(IDENTITY), refuse])(rng)]
    if rng.random() < 0.3:
        pairs.insert(rng.choice([0, 1]), _single(rng))
    return _plain_system(rng), pairs


def _plain_system(rng: random.Random) -> str | None:
    return rng.choice(PLAIN) if rng.random() < PLAIN_SYSTEM_SHARE else None


WRITERS: dict[str, tuple[Writer, int]] = {
    "synthetic_memory": (_remembering, 10_000),
    "synthetic_talk": (_talking, 4_000),
    "synthetic_answers": (_answering, 5_000),
    "synthetic_honesty": (_being_honest, 2_500),
    "synthetic_instructions": (instructed_dialogue, 3_500),
    "synthetic_practice": (_practising, 5_000),
}
"""For each source, the program that writes one dialogue and how many it writes."""
EVERYTHING = "synthetic"
"""The source that holds the dialogues of every writer."""


def write_rows(name: str, *, seed: int) -> Iterator[Conversation]:
    """Yield the dialogues of a written source, the same ones for the same seed.

    Raises ConfigurationError for a name no program writes.
    """
    if name != EVERYTHING and name not in WRITERS:
        raise ConfigurationError(
            f"no program writes {name!r}; choose {EVERYTHING!r} or one of {sorted(WRITERS)!r}"
        )
    for kind in sorted(WRITERS) if name == EVERYTHING else [name]:
        write, count = WRITERS[kind]
        rng = random.Random(f"{kind} {seed}")
        for _ in range(count):
            yield _conversation(*write(rng))


def _conversation(system: str | None, pairs: list[Pair]) -> Conversation:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for said, reply in pairs:
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]
    return Conversation(tuple(messages))
