"""The prefix cache: exact, isolated by tenant, never a source of other tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.core_driver import Driver, new_driver, random_prompt
from turnwise_server.engine.base import SamplingParams
from turnwise_server.engine.kv_cache import KVBlock, KVFormat, LayerShape
from turnwise_server.engine.prefix_cache import (
    MIN_SHARED_TOKENS,
    CachedRow,
    Match,
    PrefixCache,
    common_prefix_length,
    longest_match,
)

FORM = KVFormat((LayerShape(1, 2, 2),), torch.float32, torch.device("cpu"))


@pytest.fixture
def driver(llama_dir: Path) -> Driver:
    """A fresh core with room for four."""
    return new_driver(llama_dir, max_batch=4)


def cached_tokens(driver: Driver, prompt: list[int], tenant: str = "") -> int:
    key = driver.submit(prompt, tenant=tenant)
    driver.finish()
    return driver.events[key][0].cached_tokens


def row(tokens: list[int], tenant: str = "", capacity: int = 64) -> CachedRow:
    return CachedRow(tenant, tokens, len(tokens), KVBlock(FORM, 1, capacity))


@given(st.lists(st.integers(0, 1), max_size=50), st.lists(st.integers(0, 1), max_size=50))
def test_common_prefix_is_what_counting_gives(first: list[int], second: list[int]) -> None:
    limit = min(len(first), len(second))
    expected = next((i for i in range(limit) if first[i] != second[i]), limit)
    assert common_prefix_length(first, second, limit) == expected


def test_longest_match_never_covers_the_last_prompt_token() -> None:
    tokens = list(range(30))
    match = longest_match(tokens, "", [row(tokens)])
    assert match is not None
    assert match.tokens == 29


def test_longest_match_takes_the_longest_of_the_tenants_own() -> None:
    prompt = list(range(40))
    rows = [row(prompt[:20]), row(prompt[:25]), row(prompt, tenant="other")]
    match = longest_match(prompt, "", rows)
    assert match is not None
    assert (match.source, match.tokens) == (rows[1], 25)


def test_longest_match_ignores_tokens_that_are_not_computed_yet() -> None:
    prompt = list(range(40))
    partly = CachedRow("", prompt, 18, KVBlock(FORM, 1, 64))
    match = longest_match(prompt, "", [partly])
    assert match is not None
    assert match.tokens == 18


def test_short_prefixes_are_computed_again() -> None:
    tokens = list(range(MIN_SHARED_TOKENS - 1))
    assert longest_match([*tokens, 99, 98], "", [row(tokens)]) is None


def test_least_recently_used_rows_go_first() -> None:
    cache = PrefixCache()
    rows = [row(list(range(start, start + 40))) for start in (0, 100, 200)]
    for entry in rows:
        cache.add(entry)
    cache.use(Match(rows[0], 17))
    cache.shrink(128)
    assert list(cache) == [rows[2], rows[0]]
    assert cache.size == 128


def test_row_that_a_prompt_continues_is_given_up() -> None:
    cache = PrefixCache()
    old = row(list(range(40)))
    cache.add(old)
    cache.use(Match(old, 38))
    assert list(cache) == []
    assert cache.size == 0


def test_repeated_prompt_is_a_hit_up_to_its_last_token(driver: Driver) -> None:
    prompt = random_prompt(60, 1)
    assert cached_tokens(driver, prompt) == 0
    assert cached_tokens(driver, prompt) == 59


def test_shared_beginning_is_a_hit_and_stays_for_the_next(driver: Driver) -> None:
    system = random_prompt(40, 1)
    assert cached_tokens(driver, [*system, 2, *random_prompt(60, 2)]) == 0
    for seed in range(3, 6):
        assert cached_tokens(driver, [*system, seed, *random_prompt(60, seed)]) == 40


def test_nothing_is_shared_between_tenants(driver: Driver) -> None:
    prompt = random_prompt(60, 1)
    driver.run(prompt, tenant="alice")
    assert cached_tokens(driver, prompt, tenant="bob") == 0
    assert cached_tokens(driver, prompt, tenant="alice") == 59


def test_cancelled_prompt_serves_the_next_try(driver: Driver) -> None:
    prompt = random_prompt(120, 1)
    key = driver.submit(prompt)
    driver.step(2)
    driver.core.cancel(key)
    assert cached_tokens(driver, prompt) == 64


def test_choices_of_one_prompt_compute_it_once(driver: Driver) -> None:
    prompt = random_prompt(100, 1)
    params = SamplingParams(max_tokens=5, temperature=1.0)
    keys = [driver.submit(prompt, params) for _ in range(4)]
    driver.finish()
    first, *others = [driver.events[key][0].cached_tokens for key in keys]
    assert first == 0
    # The others start with the first one's last chunk, where waiting longer would save fewer tokens than a copy.
    assert all(cached > 99 - MIN_SHARED_TOKENS for cached in others)


def test_old_rows_make_room_and_results_stay_the_same(llama_dir: Path) -> None:
    # 1 MiB holds 2,048 tokens; finished rows may take a quarter of them, four rows of 128.
    driver = new_driver(llama_dir, kv_memory_mb=1)
    prompts = [random_prompt(100, seed) for seed in range(8)]
    replies = [driver.run(prompt) for prompt in prompts]
    assert cached_tokens(driver, prompts[0]) == 0
    assert cached_tokens(driver, prompts[7]) == 99
    for prompt, reply in zip(prompts, replies, strict=True):
        assert driver.run(prompt) == reply


@pytest.mark.parametrize("seed", range(3))
def test_conversations_give_the_same_tokens_with_and_without_hits(llama_dir: Path, seed: int) -> None:
    driver = new_driver(llama_dir, max_batch=4)
    histories = [random_prompt(20 + 5 * index, 10 * seed + index) for index in range(5)]
    for turn in range(4):
        keys = [driver.submit(history) for history in histories]
        driver.finish()
        for index, key in enumerate(keys):
            fresh = new_driver(llama_dir) if turn == 3 else None
            if fresh:
                assert driver.tokens(key) == fresh.run(histories[index])
                assert driver.events[key][0].cached_tokens > 60
            histories[index] = [*histories[index], *driver.tokens(key), *random_prompt(6, turn)]
