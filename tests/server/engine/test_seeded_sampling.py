"""A seed gives the same tokens whatever else runs; parameters of one request do not reach another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.core_driver import Driver, new_driver, random_prompt
from support.tiny_models import FAMILIES, Family
from turnwise_server.engine.base import SamplingParams

SEEDED = SamplingParams(max_tokens=30, temperature=1.3, seed=11)
VARIANTS = {
    "plain": SEEDED,
    "top_p": replace(SEEDED, top_p=0.8),
    "top_k": replace(SEEDED, top_k=20),
    "min_p": replace(SEEDED, min_p=0.05),
    "penalties": replace(SEEDED, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2),
    "bias": replace(SEEDED, logit_bias={5: 3.0, 7: -100.0}),
}


def _among_others(driver: Driver, params: SamplingParams) -> list[int]:
    others = (
        SamplingParams(max_tokens=25, temperature=0.0),
        SamplingParams(max_tokens=40, temperature=2.0, top_p=0.5),
        SamplingParams(max_tokens=10, temperature=0.7, frequency_penalty=2.0, top_logprobs=5),
        SamplingParams(max_tokens=35, temperature=1.0, seed=11),
    )
    for index in range(4):
        driver.submit(random_prompt(10 + 17 * index, 500 + index), others[index])
    driver.step(3)
    key = driver.submit(random_prompt(45, 45), params)
    driver.step(4)
    for index in range(4):
        driver.submit(random_prompt(5 + 30 * index, 600 + index), others[index])
    driver.finish()
    return driver.tokens(key)


@pytest.mark.parametrize("variant", VARIANTS)
def test_seeded_request_gives_the_same_tokens_alone_and_among_eight(llama_dir: Path, variant: str) -> None:
    alone = new_driver(llama_dir).run(random_prompt(45, 45), VARIANTS[variant])
    assert _among_others(new_driver(llama_dir, max_batch=9), VARIANTS[variant]) == alone


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_is_exact_for_every_family(checkpoints: dict[Family, Path], family: Family) -> None:
    driver = new_driver(checkpoints[family], max_batch=9)
    alone = driver.run(random_prompt(45, 45), SEEDED)
    assert _among_others(driver, SEEDED) == alone


def test_other_seeds_give_other_tokens(llama_dir: Path) -> None:
    driver = new_driver(llama_dir)
    replies = {tuple(driver.run(random_prompt(45, 45), replace(SEEDED, seed=seed))) for seed in range(5)}
    assert len(replies) == 5


def test_no_seed_draws_a_fresh_one(llama_dir: Path) -> None:
    driver = new_driver(llama_dir)
    unseeded = replace(SEEDED, seed=None)
    assert driver.run(random_prompt(45, 45), unseeded) != driver.run(random_prompt(45, 45), unseeded)


def test_negative_and_huge_seeds_are_seeds(llama_dir: Path) -> None:
    driver = new_driver(llama_dir)
    for seed in (-1, -(2**63), 2**63 - 1):
        params = replace(SEEDED, seed=seed)
        assert driver.run(random_prompt(20, 1), params) == driver.run(random_prompt(20, 1), params)
    assert driver.run(random_prompt(20, 1), replace(SEEDED, seed=-1)) != driver.run(
        random_prompt(20, 1), replace(SEEDED, seed=1)
    )
