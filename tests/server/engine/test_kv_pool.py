"""The pool of key-value memory: every row keeps its own tokens, and the budget holds, whatever the order."""

from __future__ import annotations

import random

import pytest
import torch

from turnwise_server.engine.base import GenerationRequest, SamplingParams
from turnwise_server.engine.kv_cache import KVBlock, KVFormat, LayerShape, round_up
from turnwise_server.engine.kv_pool import KVPool
from turnwise_server.engine.sampler import SamplingState
from turnwise_server.engine.sequence import Sequence

FORM = KVFormat((LayerShape(1, 2, 2), LayerShape(2, 1, 3)), torch.float32, torch.device("cpu"))


def new_sequence(key: int, tokens: list[int], max_tokens: int, tenant: str = "") -> Sequence:
    params = SamplingParams(max_tokens)
    request = GenerationRequest(str(key), tuple(tokens), params, tenant)
    state = SamplingState(params, tuple(tokens), FORM.device)
    return Sequence(key, request, state, len(tokens) + max_tokens, list(tokens))


def write(block: KVBlock, row: int, begin: int, tokens: list[int]) -> None:
    """Store each token's own id as its keys and values, as a model would store what it computes."""
    for tensors in (block.keys, block.values):
        for tensor in tensors:
            tensor[row, :, begin : begin + len(tokens)] = torch.tensor(tokens).float()[None, :, None]


def holds(block: KVBlock, row: int, tokens: list[int]) -> bool:
    """Say whether a row holds exactly these tokens."""
    expected = torch.tensor(tokens).float()[None, :, None]
    return all(
        bool((tensor[row, :, : len(tokens)] == expected).all())
        for tensors in (block.keys, block.values)
        for tensor in tensors
    )


def prefill(pool: KVPool, sequence: Sequence) -> None:
    pool.admit(sequence)
    assert sequence.block is not None
    write(sequence.block, 0, sequence.computed, sequence.tokens[sequence.computed :])
    sequence.computed = sequence.prompt_length
    pool.start_decoding(sequence)


def decode_step(pool: KVPool, token: int) -> None:
    for sequence in pool.decoding:
        sequence.tokens.append(token)
    pool.prepare_step()
    for sequence in pool.decoding:
        write(pool.batch, sequence.row, sequence.computed, [token])
        sequence.computed += 1


def check(pool: KVPool) -> None:
    for row, sequence in enumerate(pool.decoding):
        assert sequence.row == row
        assert holds(pool.batch, row, sequence.tokens[: sequence.computed])
    assert pool.batch.rows >= len(pool.decoding)


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_keeps_every_row_and_the_budget(seed: int) -> None:
    chance = random.Random(seed)
    pool = KVPool(FORM, budget=4096)
    waiting: Sequence | None = None
    for key in range(150):
        if waiting is None:
            # Few different tokens and shared beginnings, so that prefixes are found all the time.
            prompt = [1, 2, 3] * 10 + chance.choices(range(3), k=chance.randrange(1, 150))
            waiting = new_sequence(key, prompt, chance.randrange(1, 200), chance.choice(["a", "b"]))
        if pool.can_admit(waiting):
            prefill(pool, waiting)
            waiting = None
        elif not pool.decoding:
            pytest.fail("an empty pool must admit")
        check(pool)
        for _ in range(chance.randrange(4)):
            for sequence in list(pool.decoding):
                if len(sequence.tokens) + 1 >= sequence.limit:
                    pool.release(sequence, keep=True)
            decode_step(pool, chance.randrange(3))
            check(pool)
        if pool.decoding and chance.random() < 0.4:
            pool.release(chance.choice(pool.decoding), keep=chance.random() < 0.8)
            check(pool)
        assert pool.batch.size + pool._prefill_size() + pool._finished.size <= 4096
        for entry in pool._finished:
            assert holds(entry.block, 0, list(entry.tokens))


def test_batch_is_as_long_as_its_longest_sequence_needs() -> None:
    pool = KVPool(FORM, budget=4096)
    short, long = new_sequence(0, [1] * 20, 50), new_sequence(1, [2] * 500, 50)
    prefill(pool, short)
    assert pool.batch.capacity == 64
    prefill(pool, long)
    assert pool.batch.capacity == round_up(501)
    pool.release(long, keep=True)
    pool.prepare_step()
    assert pool.batch.capacity == 64
    check(pool)


def test_blocks_start_zeroed_and_resizing_keeps_what_is_asked_for() -> None:
    block = KVBlock(FORM, 2, 64)
    write(block, 0, 0, [5, 6, 7])
    write(block, 1, 0, [8, 9])
    block.resize(4, 128, [3, 2])
    assert holds(block, 0, [5, 6, 7])
    assert holds(block, 1, [8, 9])
    assert block.size == 512
    assert all(not tensor[2:].any() for tensor in (*block.keys, *block.values))


def test_bytes_of_a_token_are_those_of_all_layers() -> None:
    assert FORM.bytes_per_token == (1 * 4 + 2 * 4) * 4
