"""The sampler against slow, obvious references."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.engine.base import SamplingParams
from turnwise_server.engine.sampler import LOGPROB_FLOOR, SamplingState, inverse_cdf, sample

CPU = torch.device("cpu")
BASE = SamplingParams(max_tokens=1)


def reference_distribution(logits: list[float], params: SamplingParams) -> dict[int, float]:
    """Return the probability of each token that the filters leave, computed in the plainest way."""
    peak = max(logits)
    weights = [math.exp((logit - peak) / params.temperature) for logit in logits]
    total = sum(weights)
    order = sorted(range(len(logits)), key=lambda token: -weights[token])
    kept = [(token, weights[token] / total) for token in order]
    if params.top_k:
        kept = kept[: params.top_k]
    if params.top_p < 1.0:
        mass, reached = sum(p for _, p in kept), 0.0
        nucleus: list[tuple[int, float]] = []
        for token, p in kept:
            if nucleus and reached >= params.top_p * mass:
                break
            nucleus.append((token, p))
            reached += p
        kept = nucleus
    kept = [(token, p) for token, p in kept if p >= params.min_p * kept[0][1]]
    mass = sum(p for _, p in kept)
    return {token: p / mass for token, p in kept}


def draw_many(logits: torch.Tensor, params: SamplingParams, count: int) -> Counter[int]:
    """Draw `count` tokens from one row, each with its own seed."""
    states = [SamplingState(replace(params, seed=seed), (), CPU) for seed in range(count)]
    return Counter(sample(logits.expand(count, -1).clone(), states)[0])


def chi_square_is_plausible(counts: Counter[int], expected: dict[int, float]) -> bool:
    """Say whether the counts fit the distribution; wrong for one fair sampler in ten million."""
    total = sum(counts.values())
    rare = sum(p for p in expected.values() if p * total < 5)
    cells = [(counts[token], p * total) for token, p in expected.items() if p * total >= 5]
    if rare * total >= 5:
        cells.append((total - sum(seen for seen, _ in cells), rare * total))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    freedom = max(1, len(cells) - 1)
    # Wilson-Hilferty: the cube root of a chi-square over its freedom is nearly normal.
    deviation = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return bool(deviation < 5.2)


@pytest.mark.parametrize(
    "params",
    [
        BASE,
        replace(BASE, temperature=0.5),
        replace(BASE, temperature=1.7),
        replace(BASE, top_k=5),
        replace(BASE, top_k=1500),
        replace(BASE, top_p=0.7),
        replace(BASE, top_p=0.99),
        replace(BASE, top_p=0.999, temperature=3.0),
        replace(BASE, min_p=0.1),
        replace(BASE, min_p=0.0001, temperature=3.0),
        replace(BASE, top_k=300, top_p=0.9, min_p=0.01, temperature=1.4),
    ],
    ids=str,
)
def test_tokens_are_distributed_as_the_reference_says(params: SamplingParams) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2000) * 2
    expected = reference_distribution(logits.tolist(), params)
    counts = draw_many(logits, params, 20_000)
    assert set(counts) <= set(expected)
    assert chi_square_is_plausible(counts, expected)


def test_the_distribution_check_can_fail() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2000) * 2
    counts = draw_many(logits, replace(BASE, temperature=1.1), 20_000)
    assert not chi_square_is_plausible(counts, reference_distribution(logits.tolist(), BASE))


@given(
    logits=st.lists(st.floats(-20, 20, width=16), min_size=2, max_size=150),
    temperature=st.floats(0.05, 3),
    top_k=st.integers(0, 160),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_drawn_token_is_one_the_filters_leave(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    params = SamplingParams(1, temperature, top_p, top_k, min_p, seed)
    [token], _ = sample(torch.tensor([logits]), [SamplingState(params, (), CPU)])
    # Equal logits may be taken in any order, so compare the token's weight with the least weight that is left.
    left = reference_distribution(logits, params)
    least = min(logits[kept] for kept in left)
    slack = 1e-3 * max(1.0, abs(least))
    # A nucleus whose edge falls on a rounding error may hold one token more or less.
    edge = sorted(logits, reverse=True)[min(len(left), len(logits) - 1)]
    assert logits[token] >= min(least, edge) - slack


@given(
    rows=st.lists(
        st.tuples(
            st.floats(0, 2),
            st.sampled_from([0, 1, 7, 100]),
            st.sampled_from([0.1, 0.9, 1.0]),
            st.integers(0, 9),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_a_row_is_drawn_as_if_it_were_alone(rows: list[tuple[float, int, float, int]]) -> None:
    torch.manual_seed(1)
    logits = torch.randn(len(rows), 200) * 3
    params = [
        SamplingParams(1, temperature, top_p, top_k, 0.0, seed) for temperature, top_k, top_p, seed in rows
    ]
    together, _ = sample(logits.clone(), [SamplingState(p, (), CPU) for p in params])
    alone = [
        sample(logits[i : i + 1].clone(), [SamplingState(p, (), CPU)])[0][0] for i, p in enumerate(params)
    ]
    assert together == alone


def test_temperature_zero_is_greedy_and_takes_the_first_maximum() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    greedy = replace(BASE, temperature=0.0)
    assert sample(logits, [SamplingState(greedy, (), CPU)] * 2)[0] == [1, 0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-5])
def test_tiny_temperature_is_nearly_greedy_and_no_nan(temperature: float) -> None:
    logits = torch.randn(1, 50)
    state = SamplingState(replace(BASE, temperature=temperature), (), CPU)
    assert sample(logits.clone(), [state])[0] == [int(logits.argmax())]


def test_top_p_zero_keeps_the_most_likely_token() -> None:
    logits = torch.randn(1, 500)
    assert draw_many(logits[0], replace(BASE, top_p=0.0), 50).keys() == {int(logits.argmax())}


@pytest.mark.parametrize("sick", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "params", [BASE, replace(BASE, temperature=0.0), replace(BASE, top_p=0.9, top_k=3)], ids=str
)
def test_sick_logits_yield_a_token_and_leave_the_other_row_alone(sick: float, params: SamplingParams) -> None:
    healthy = torch.randn(300)
    alone = sample(healthy[None].clone(), [SamplingState(replace(params, seed=3), (), CPU)])[0]
    one_sick = healthy.clone()
    one_sick[7] = sick
    for row in (one_sick, torch.full((300,), sick)):
        logits = torch.stack([row, healthy])
        states = [SamplingState(replace(params, seed=3, top_logprobs=2), (), CPU) for _ in range(2)]
        tokens, logprobs = sample(logits, states)
        assert 0 <= tokens[0] < 300
        assert tokens[1] == alone[0]
        assert all(entry and math.isfinite(entry.logprob) for entry in logprobs)


@given(
    generated=st.lists(st.integers(0, 9), max_size=12),
    prompt=st.lists(st.integers(0, 9), max_size=6),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    repetition=st.floats(0.5, 2),
    bias=st.dictionaries(st.integers(0, 9), st.floats(-100, 100), max_size=4),
)
def test_penalties_and_bias_equal_the_reference(
    generated: list[int],
    prompt: list[int],
    presence: float,
    frequency: float,
    repetition: float,
    bias: dict[int, float],
) -> None:
    params = SamplingParams(
        max_tokens=1,
        temperature=0.0,
        presence_penalty=presence,
        frequency_penalty=frequency,
        repetition_penalty=repetition,
        logit_bias=bias,
        top_logprobs=0,
    )
    state = SamplingState(params, tuple(prompt), CPU)
    logits = torch.linspace(-3, 4, 10)
    counts: Counter[int] = Counter()
    for token in generated:
        if state.adjustment:
            state.adjustment.observe(token)
        counts[token] += 1
    expected = logits.clone()
    for token in range(10):
        if token in counts or token in prompt:
            expected[token] = (
                expected[token] / repetition if expected[token] > 0 else expected[token] * repetition
            )
        expected[token] -= counts[token] * frequency + (counts[token] > 0) * presence
        expected[token] += bias.get(token, 0.0)
    adjusted = logits.clone()
    if state.adjustment:
        state.adjustment.apply(adjusted)
    torch.testing.assert_close(adjusted, expected, rtol=1e-4, atol=1e-4)


def test_many_different_tokens_are_all_counted() -> None:
    state = SamplingState(replace(BASE, frequency_penalty=1.0), (), CPU)
    assert state.adjustment
    for token in range(1000):
        for _ in range(1 + token % 2):
            state.adjustment.observe(token)
    logits = torch.zeros(1200)
    state.adjustment.apply(logits)
    assert logits.tolist() == [-1.0 - token % 2 for token in range(1000)] + [0.0] * 200


def test_logprobs_are_those_of_the_model_before_temperature_bias_and_filters() -> None:
    torch.manual_seed(2)
    logits = torch.randn(1, 100)
    expected = torch.log_softmax(logits[0], dim=-1)
    params = replace(BASE, temperature=0.3, top_k=2, logit_bias={4: 100.0}, top_logprobs=5, seed=1)
    [token], [entry] = sample(logits.clone(), [SamplingState(params, (), CPU)])
    assert entry is not None
    assert token == 4
    assert entry.logprob == pytest.approx(float(expected[4]), abs=1e-5)
    best = expected.topk(5)
    assert [token for token, _ in entry.top] == best.indices.tolist()
    assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_rows_report_as_many_logprobs_as_each_asks_for() -> None:
    logits = torch.randn(3, 50)
    states = [SamplingState(replace(BASE, top_logprobs=n), (), CPU) for n in (None, 0, 3)]
    _, logprobs = sample(logits, states)
    assert logprobs[0] is None
    assert [len(entry.top) for entry in logprobs if entry] == [0, 3]


def test_impossible_tokens_have_the_floor_as_logprob() -> None:
    logits = torch.tensor([[0.0, -math.inf, -math.inf]])
    _, [entry] = sample(logits, [SamplingState(replace(BASE, top_logprobs=3), (), CPU)])
    assert entry is not None
    assert [value for _, value in entry.top] == [0.0, LOGPROB_FLOOR, LOGPROB_FLOOR]


@given(
    weights=st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-3),
    uniform=st.floats(0, 1, exclude_max=True, width=32),
)
def test_inverse_cdf_never_picks_what_has_no_weight(weights: list[float], uniform: float) -> None:
    index = int(inverse_cdf(torch.tensor([weights]), torch.tensor([uniform]))[0])
    assert weights[index] > 0


def test_inverse_cdf_picks_by_share() -> None:
    weights = torch.tensor([[1.0, 0.0, 2.0, 1.0]]).expand(5, -1)
    picked = inverse_cdf(weights, torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75]))
    assert picked.tolist() == [0, 0, 2, 2, 3]
