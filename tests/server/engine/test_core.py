"""Ends, cancellation, faults and limits of the engine core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.core_driver import Driver, new_driver, random_prompt
from support.tiny_models import CONTEXT_LENGTH, EOS_TOKEN_ID
from turnwise_server.engine import core as core_module
from turnwise_server.engine.base import FinishReason, SamplingParams
from turnwise_server.errors import ConfigurationError


@pytest.fixture
def driver(llama_dir: Path) -> Driver:
    """A fresh core with room for four."""
    return new_driver(llama_dir, max_batch=4)


def greedy(max_tokens: int, stop: frozenset[int] = frozenset()) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, stop_token_ids=stop)


def test_max_tokens_end_with_length(driver: Driver) -> None:
    key = driver.submit(random_prompt(10, 1), greedy(5))
    driver.finish()
    reasons = [event.finish_reason for event in driver.events[key]]
    assert reasons == [None] * 4 + [FinishReason.LENGTH]


def test_full_context_ends_with_length(driver: Driver) -> None:
    key = driver.submit(random_prompt(CONTEXT_LENGTH - 3, 1), greedy(100))
    driver.finish()
    reasons = [event.finish_reason for event in driver.events[key]]
    assert reasons == [None, None, FinishReason.LENGTH]


def test_prompt_that_leaves_room_for_one_token_gets_one(driver: Driver) -> None:
    assert len(driver.run(random_prompt(CONTEXT_LENGTH - 1, 1), greedy(100))) == 1


def test_stop_token_ends_with_stop_and_is_reported(driver: Driver) -> None:
    free = driver.run(random_prompt(10, 1), greedy(12))
    stop = free[7]
    key = driver.submit(random_prompt(10, 1), greedy(12, frozenset({stop, EOS_TOKEN_ID})))
    driver.finish()
    assert driver.tokens(key) == free[: free.index(stop) + 1]
    assert driver.events[key][-1].finish_reason is FinishReason.STOP


def test_stop_token_at_the_limit_counts_as_stop(driver: Driver) -> None:
    free = driver.run(random_prompt(10, 1), greedy(3))
    key = driver.submit(random_prompt(10, 1), greedy(3, frozenset({free[2]})))
    driver.finish()
    assert driver.events[key][-1].finish_reason is FinishReason.STOP


def test_cancelled_running_sequence_frees_its_place_for_the_next_step(driver: Driver) -> None:
    running = [driver.submit(random_prompt(10, index), greedy(100)) for index in range(4)]
    waiting = driver.submit(random_prompt(10, 9), greedy(5))
    driver.step(3)
    assert waiting not in driver.started
    driver.core.cancel(running[1])
    driver.step()
    assert waiting in driver.started
    assert len(driver.events[waiting]) == 1
    before = len(driver.events[running[1]])
    driver.step(3)
    assert len(driver.events[running[1]]) == before


def test_cancelled_waiting_sequence_never_starts(driver: Driver) -> None:
    for index in range(4):
        driver.submit(random_prompt(10, index), greedy(10))
    waiting = driver.submit(random_prompt(10, 9))
    driver.step()
    driver.core.cancel(waiting)
    driver.finish()
    assert waiting not in driver.started


def test_sequence_cancelled_during_prefill_stops_being_computed(driver: Driver) -> None:
    key = driver.submit(random_prompt(200, 1))
    driver.step(2)
    driver.core.cancel(key)
    assert not driver.core.has_work
    assert driver.events[key] == []
    assert driver.core.counters().kv_cache_usage == 0.0


def test_cancelling_the_unknown_and_the_finished_does_nothing(driver: Driver) -> None:
    key = driver.submit(random_prompt(10, 1), greedy(2))
    driver.finish()
    driver.core.cancel(key)
    driver.core.cancel(12345)
    assert not driver.core.has_work


def test_fault_in_decoding_fails_the_running_and_spares_the_rest(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = [driver.submit(random_prompt(10, index), greedy(50)) for index in range(2)]
    driver.step(2)
    spared = driver.submit(random_prompt(20, 7), greedy(6))
    expected = new_run(driver, random_prompt(20, 7), monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(driver.core._forward, "decode", _raise)
        driver.step()
    assert set(driver.errors) == set(victims)
    assert "RuntimeError: the card fell off" in driver.errors[victims[0]]
    driver.finish()
    assert driver.tokens(spared) == expected


def new_run(driver: Driver, prompt: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    twin = Driver(
        core_module.EngineCore(
            driver.core._forward,
            context_length=CONTEXT_LENGTH,
            max_batch=1,
            kv_memory_bytes=2**26,
            prefill_chunk=32,
        )
    )
    return twin.run(prompt, greedy(6))


def test_fault_in_a_prompt_spares_those_that_run(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = random_prompt(10, 1)
    expected = driver.run(prompt, greedy(30))
    running = driver.submit(prompt, greedy(30))
    driver.step(5)
    victim = driver.submit(random_prompt(20, 2))
    with monkeypatch.context() as patch:
        patch.setattr(driver.core._forward, "prefill", _raise)
        driver.step()
    assert set(driver.errors) == {victim}
    driver.finish()
    assert driver.tokens(running) == expected


def test_fault_in_sampling_fails_the_step_without_hanging(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = driver.submit(random_prompt(10, 1))
    monkeypatch.setattr(core_module, "sample", _raise)
    driver.finish()
    assert set(driver.errors) == {key}


def test_nan_from_one_request_does_not_reach_another(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = random_prompt(10, 1)
    expected = driver.run(prompt, greedy(10))
    decode = driver.core._forward.decode

    def poison_first_row(*arguments: object) -> torch.Tensor:
        logits: torch.Tensor = decode(*arguments)  # type: ignore[arg-type]
        logits[0] = torch.nan
        return logits

    monkeypatch.setattr(driver.core._forward, "decode", poison_first_row)
    driver.submit(random_prompt(12, 2), greedy(10))
    driver.step(2)
    healthy = driver.submit(prompt, greedy(8))
    driver.finish()
    assert not driver.errors
    assert driver.tokens(healthy)[:5] == expected[:5]


def test_counters_add_up(driver: Driver) -> None:
    prompt = random_prompt(40, 1)
    driver.run(prompt, greedy(5))
    driver.run(prompt, greedy(5))
    counters = driver.core.counters()
    assert (counters.prompt_tokens, counters.cached_prompt_tokens, counters.generated_tokens) == (80, 39, 10)


def test_usage_of_the_cache_is_that_of_running_sequences(driver: Driver) -> None:
    driver.submit(random_prompt(40, 1), greedy(10))
    driver.step()
    assert 0.0 < driver.core.counters().kv_cache_usage <= 1.0
    driver.finish()
    assert driver.core.counters().kv_cache_usage == 0.0


def test_cache_too_small_for_one_context_is_refused_with_the_size_it_needs(llama_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="need 1 MiB at least"):
        new_driver(llama_dir, kv_memory_mb=0)


def test_tight_cache_runs_fewer_at_once_and_finishes_all(llama_dir: Path) -> None:
    # 512 bytes a token: 1 MiB holds 2,048 tokens, so eight sequences of 256 cannot run at once with their prompts.
    driver = new_driver(llama_dir, max_batch=16, kv_memory_mb=1)
    wide = new_driver(llama_dir, max_batch=16)
    keys = [driver.submit(random_prompt(60, index), greedy(190)) for index in range(12)]
    most = 0
    while driver.core.has_work:
        driver.step()
        most = max(most, driver.core._scheduler.running_count)
        assert driver.core.counters().kv_cache_usage <= 1.0
    assert 1 < most < 12
    assert driver.tokens(keys[11]) == wide.run(random_prompt(60, 11), greedy(190))


def test_default_memory_lets_the_whole_batch_run_to_its_limit(llama_dir: Path) -> None:
    driver = new_driver(llama_dir, max_batch=5, kv_memory_mb=None)
    for index in range(5):
        driver.submit(random_prompt(20, index), greedy(CONTEXT_LENGTH))
    driver.step(5)
    assert driver.core._scheduler.running_count == 5


def _raise(*_: object) -> None:
    raise RuntimeError("the card fell off")
