"""Who runs when: fair between tenants, one chunk a step, no more than the batch holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.core_driver import Driver, new_driver, random_prompt
from turnwise_server.engine.base import SamplingParams

SHORT = SamplingParams(max_tokens=4, temperature=0.0)


@pytest.fixture
def driver(llama_dir: Path) -> Driver:
    """A fresh core with room for two."""
    return new_driver(llama_dir, max_batch=2)


def test_tenant_with_one_request_does_not_wait_behind_a_crowd(driver: Driver) -> None:
    crowd = [driver.submit(random_prompt(10, seed), SHORT, tenant="crowd") for seed in range(10)]
    single = driver.submit(random_prompt(10, 99), SHORT, tenant="single")
    driver.finish()
    assert driver.started.index(single) <= 2
    assert sorted(driver.started) == sorted([*crowd, single])


@pytest.mark.parametrize("places", [1, 2, 4])
def test_one_request_among_sixty_of_another_key_waits_for_one_of_them_at_most(
    llama_dir: Path, places: int
) -> None:
    driver = new_driver(llama_dir, max_batch=places)
    for seed in range(60):
        driver.submit(random_prompt(10, seed), SHORT, tenant="crowd")
    driver.step()
    before = len(driver.started)
    single = driver.submit(random_prompt(10, 99), SHORT, tenant="single")
    driver.finish()
    assert driver.started.index(single) == before
    assert len(driver.started) == 61


def test_a_newcomer_waits_for_one_turn_of_each_key_and_not_for_their_backlogs(llama_dir: Path) -> None:
    driver = new_driver(llama_dir, max_batch=2)
    for seed in range(60):
        driver.submit(random_prompt(10, seed), SHORT, tenant="ab"[seed % 2])
    driver.step(3)
    before = len(driver.started)
    newcomer = driver.submit(random_prompt(10, 99), SHORT, tenant="c")
    driver.finish()
    assert driver.started.index(newcomer) == before


def test_a_backlog_is_not_starved_by_keys_that_always_come_with_one_request(llama_dir: Path) -> None:
    driver = new_driver(llama_dir, max_batch=1)
    crowd = [driver.submit(random_prompt(10, seed), SHORT, tenant="crowd") for seed in range(10)]
    singles = {name: driver.submit(random_prompt(10, 50), SHORT, tenant=name) for name in "abc"}
    while not set(crowd) <= set(driver.started):
        driver.step()
        for name, key in singles.items():
            if key in driver.started:
                singles[name] = driver.submit(random_prompt(10, 50), SHORT, tenant=name)
        assert len(driver.started) <= 4 * len(crowd), "each key has every fourth turn"


def test_tenants_take_turns(driver: Driver) -> None:
    names = "aabb"
    keys = {name: [] for name in names}  # type: dict[str, list[int]]
    for name in ("a", "a", "a", "b", "b", "b"):
        keys[name].append(driver.submit(random_prompt(10, len(keys[name])), SHORT, tenant=name))
    driver.step()
    assert sorted(driver.started) == [keys["a"][0], keys["b"][0]]


def test_inside_a_tenant_first_come_is_first_served(driver: Driver) -> None:
    keys = [driver.submit(random_prompt(10, seed), SHORT) for seed in range(6)]
    driver.finish()
    assert driver.started == keys


def test_long_prompt_takes_one_chunk_a_step_and_others_go_on_meanwhile(driver: Driver) -> None:
    running = driver.submit(random_prompt(10, 1), SamplingParams(max_tokens=50, temperature=0.0))
    driver.step()
    long = driver.submit(random_prompt(100, 2), SHORT)
    sizes = []
    prefill = driver.core._forward.prefill

    def record(chunks):  # type: ignore[no-untyped-def]
        sizes.append(sum(len(chunk.token_ids) for chunk in chunks))
        return prefill(chunks)

    driver.core._forward.prefill = record  # type: ignore[method-assign]
    driver.step(4)
    assert sizes == [32, 32, 32, 4]
    assert len(driver.tokens(running)) == 5
    assert len(driver.tokens(long)) == 1


def test_short_prompts_share_a_chunk(llama_dir: Path) -> None:
    driver = new_driver(llama_dir, max_batch=8)
    keys = [driver.submit(random_prompt(10, seed), SHORT) for seed in range(3)]
    driver.step()
    assert [len(driver.tokens(key)) for key in keys] == [1, 1, 1]


def test_never_more_run_than_the_batch_holds(driver: Driver) -> None:
    for seed in range(7):
        driver.submit(random_prompt(10 + seed, seed), SHORT)
    while driver.core.has_work:
        driver.step()
        assert driver.core._scheduler.running_count <= 2
    assert len(driver.started) == 7
