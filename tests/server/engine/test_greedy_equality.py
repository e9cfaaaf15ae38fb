"""Greedy output equals `transformers.generate`, token for token, whatever else the engine does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.core_driver import Driver, new_driver, random_prompt
from support.tiny_models import FAMILIES, Family, greedy_reference, tiny_model

LENGTHS = (1, 3, 31, 32, 33, 65, 100, 150)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn."""
    name: Family = request.param
    return name


@pytest.fixture(scope="module")
def references(family: Family) -> list[list[int]]:
    """What transformers generates for each prompt, alone."""
    model = tiny_model(family)
    return [greedy_reference(model, random_prompt(length, length), 20) for length in LENGTHS]


@pytest.fixture
def driver(family: Family, checkpoints: dict[Family, Path]) -> Driver:
    """A fresh engine core: prompts above 32 tokens need several chunks."""
    return new_driver(checkpoints[family])


def test_references_are_not_trivial(references: list[list[int]]) -> None:
    assert all(len(set(tokens)) > 3 for tokens in references)


def test_equals_transformers_alone(driver: Driver, references: list[list[int]]) -> None:
    for length, expected in zip(LENGTHS, references, strict=True):
        assert driver.run(random_prompt(length, length)) == expected


def test_equals_transformers_in_a_batch_that_starts_together(
    driver: Driver, references: list[list[int]]
) -> None:
    keys = [driver.submit(random_prompt(length, length)) for length in LENGTHS]
    driver.finish()
    assert [driver.tokens(key) for key in keys] == references


def test_equals_transformers_while_others_join_and_leave(driver: Driver, references: list[list[int]]) -> None:
    keys = []
    for index, length in enumerate(LENGTHS):
        keys.append(driver.submit(random_prompt(length, length)))
        passer_by = driver.submit(random_prompt(40 + index, 1000 + index))
        driver.step(2 + index % 3)
        driver.core.cancel(passer_by)
    driver.finish()
    assert [driver.tokens(key) for key in keys] == references


def test_equals_transformers_from_the_prefix_cache(driver: Driver, references: list[list[int]]) -> None:
    for length in LENGTHS:
        driver.run(random_prompt(length, length))
    keys = [driver.submit(random_prompt(length, length)) for length in LENGTHS]
    driver.finish()
    assert [driver.tokens(key) for key in keys] == references
    cached = [driver.events[key][0].cached_tokens for key in keys]
    assert cached == [length - 1 if length > 16 else 0 for length in LENGTHS]


def test_next_turn_hits_the_generated_tokens_and_equals_transformers(driver: Driver, family: Family) -> None:
    prompt = random_prompt(50, 50)
    reply = driver.run(prompt)
    following = [*prompt, *reply, *random_prompt(7, 7)]
    key = driver.submit(following)
    driver.finish()
    assert driver.tokens(key) == greedy_reference(tiny_model(family), following, 20)
    # The last token of a reply is never computed: nothing came after it.
    assert driver.events[key][0].cached_tokens == len(prompt) + len(reply) - 1
