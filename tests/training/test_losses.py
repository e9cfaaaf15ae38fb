"""Every formula against a slow, obvious reference in plain Python loops; the numbers are those of the specification."""

import math
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from turnwise_training.losses import (
    adapted_beta,
    chosen_log_probs,
    entropy,
    explained_variance,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    last_acted,
    policy_loss,
    ranking_loss,
    token_rewards,
    value_loss,
    whiten,
)

EXACT = 1e-9
PROMPT = 3
VOCABULARY = 5


@dataclass(frozen=True)
class Batch:
    """Random answers of ragged lengths in float64, every tensor [B, T]; padding holds noise too."""

    lengths: list[int]
    acted: Tensor
    logp: Tensor
    ref: Tensor
    values: Tensor
    scores: Tensor

    @classmethod
    def random(cls, seed: int) -> "Batch":
        """Return 1 to 6 answers of 1 to 8 tokens."""
        generator = torch.Generator().manual_seed(seed)
        rows, length = (int(torch.randint(1, top, (), generator=generator)) for top in (7, 9))
        lengths = torch.randint(1, length + 1, (rows,), generator=generator)
        acted = (torch.arange(length) < lengths[:, None]).double()
        logp, ref, values = torch.randn(3, rows, length, generator=generator, dtype=torch.float64)
        scores = torch.randn(rows, generator=generator, dtype=torch.float64)
        return cls(lengths.tolist(), acted, logp, ref, values, scores)


batches = st.integers(0, 2**32 - 1).map(Batch.random)
four_reals = st.lists(st.floats(-3, 3), min_size=4, max_size=4)


def same(found: Tensor | float, expected: object) -> None:
    """Assert equality to 1e-9 in float64."""
    torch.testing.assert_close(
        torch.as_tensor(found, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=EXACT,
        atol=EXACT,
    )


def slow_gae(rewards: list[float], values: list[float], length: int, gamma: float, lam: float) -> list[float]:
    """Return the sum over l of (gamma * lam)^l * delta_{t+l}, written as the sum that it is."""
    value = [*values[:length], 0.0]
    deltas = [rewards[t] + gamma * value[t + 1] - value[t] for t in range(length)]
    sums = [sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, length)) for t in range(length)]
    return sums + [0.0] * (len(values) - length)


@pytest.mark.parametrize(("gamma", "lam"), [(1, 0.95), (0.9, 1), (1, 0), (1, 1)])
@given(batch=batches)
def test_01_gae_is_the_discounted_sum_of_deltas_at_ragged_ends(
    gamma: float, lam: float, batch: Batch
) -> None:
    advantages, returns = gae(batch.ref, batch.values, batch.acted, gamma=gamma, lam=lam)
    rows = zip(batch.ref.tolist(), batch.values.tolist(), batch.lengths, strict=True)
    expected = torch.tensor([slow_gae(*row, gamma, lam) for row in rows], dtype=torch.float64)
    same(advantages, expected)
    same(returns, expected + batch.values * batch.acted)


@given(batch=batches)
def test_01_at_lam_1_an_advantage_is_return_minus_value_and_at_lam_0_it_is_delta(batch: Batch) -> None:
    at_one, _ = gae(batch.ref, batch.values, batch.acted, gamma=0.9, lam=1)
    at_zero, _ = gae(batch.ref, batch.values, batch.acted, gamma=0.9, lam=0)
    for row, length in enumerate(batch.lengths):
        for t in range(length):
            rewards = batch.ref[row, t:length].tolist()
            discounted = sum(0.9**later * reward for later, reward in enumerate(rewards))
            same(at_one[row, t], discounted - batch.values[row, t].item())
            next_value = batch.values[row, t + 1].item() if t + 1 < length else 0.0
            same(at_zero[row, t], rewards[0] + 0.9 * next_value - batch.values[row, t].item())


@given(batch=batches, noise=st.sampled_from([1e9, math.inf, math.nan]))
def test_01_padding_changes_no_reward_and_no_advantage(batch: Batch, noise: float) -> None:
    def advantages(padding: float) -> Tensor:
        logp, values = (torch.where(batch.acted.bool(), x, padding) for x in (batch.logp, batch.values))
        rewards = token_rewards(batch.scores, logp, batch.ref, batch.acted, beta=0.1)
        return gae(rewards, values, batch.acted, gamma=1, lam=0.95)[0]

    assert torch.equal(advantages(noise), advantages(0.0))


def answer_logits(logits: Tensor) -> Tensor:
    """Return what predicted each answer token, [B, T, V] from [B, P+T, V]: the convention the trainer follows."""
    return logits[:, PROMPT - 1 : -1]


@pytest.mark.parametrize("position", range(4))
def test_02_a_reward_on_one_token_reaches_only_the_logits_that_predicted_it(position: int) -> None:
    answers = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    answers[1, position] = 0
    acted = torch.ones(2, 4, dtype=torch.float64)
    rewards = torch.zeros(2, 4, dtype=torch.float64)
    rewards[0, position] = 1.0
    generator = torch.Generator().manual_seed(position)
    logits = torch.randn(2, PROMPT + 4, VOCABULARY, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    logp = chosen_log_probs(answer_logits(logits), answers, temperature=1.0)
    advantages, _ = gae(rewards, torch.zeros_like(rewards), acted, gamma=1, lam=0)
    loss, _ = policy_loss(logp, logp.detach(), advantages, acted, clip=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.nonzero(logits.grad.abs().sum(-1)).tolist() == [[0, PROMPT - 1 + position]]
    assert logits.grad[0, PROMPT - 1 + position, answers[0, position]] < 0


@given(batch=batches)
def test_03_whitened_values_have_mean_0_and_population_variance_1_over_the_mask(batch: Batch) -> None:
    whitened = whiten(batch.values, batch.acted)
    kept = [batch.values[row, t].item() for row, n in enumerate(batch.lengths) for t in range(n)]
    mean = sum(kept) / len(kept)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in kept) / len(kept))
    found = [whitened[row, t].item() for row, n in enumerate(batch.lengths) for t in range(n)]
    same(sum(found) / len(found), 0.0)
    if len(kept) > 1:
        same(sum(value**2 for value in found) / len(found), 1.0)
        same(torch.tensor(found, dtype=torch.float64), [(value - mean) / deviation for value in kept])
    same(whitened * (1 - batch.acted), torch.zeros_like(whitened))


@given(batch=batches)
def test_03_padding_changes_no_whitened_value(batch: Batch) -> None:
    padded = torch.where(batch.acted.bool(), batch.values, 1e9)
    assert torch.equal(whiten(padded, batch.acted), whiten(batch.values, batch.acted))


def test_03_equal_values_whiten_to_zero_and_not_to_noise() -> None:
    values = torch.full((2, 3), 0.1) + torch.tensor([[0.0, 1e-8, 0.0], [0.0, 0.0, -1e-8]])
    assert whiten(values, torch.ones(2, 3)).abs().max() < 1e-6


def test_04_kl_estimators_are_their_formulas() -> None:
    logp, ref = -0.3, -1.1
    tensors = torch.tensor(logp, dtype=torch.float64), torch.tensor(ref, dtype=torch.float64)
    same(kl_k1(*tensors), logp - ref)
    same(kl_k2(*tensors), (logp - ref) ** 2 / 2)
    same(kl_k3(*tensors), math.exp(ref - logp) - 1 - (ref - logp))


@given(p=four_reals, q=four_reals)
def test_04_k1_and_k3_average_to_the_exact_kl_and_k3_is_never_negative(
    p: list[float], q: list[float]
) -> None:
    def distribution(logits: list[float]) -> list[float]:
        weights = [math.exp(logit) for logit in logits]
        return [weight / sum(weights) for weight in weights]

    chances, others = distribution(p), distribution(q)
    exact = sum(a * math.log(a / b) for a, b in zip(chances, others, strict=True))
    logp, ref = (torch.tensor(x, dtype=torch.float64).log_softmax(-1) for x in (p, q))
    same((logp.exp() * kl_k1(logp, ref)).sum(), exact)
    same((logp.exp() * kl_k3(logp, ref)).sum(), exact)
    assert bool((kl_k3(logp, ref) >= 0).all())
    assert bool((kl_k2(logp, ref) >= 0).all())


@given(batch=batches, beta=st.floats(0, 1))
def test_05_the_score_lands_on_the_last_acted_token_and_all_adds_up(batch: Batch, beta: float) -> None:
    rewards = token_rewards(batch.scores, batch.logp, batch.ref, batch.acted, beta=beta)
    assert last_acted(batch.acted).tolist() == [length - 1 for length in batch.lengths]
    for row, length in enumerate(batch.lengths):
        penalties = [-beta * (batch.logp[row, t] - batch.ref[row, t]).item() for t in range(length)]
        expected = [*penalties[:-1], penalties[-1] + batch.scores[row].item()]
        same(rewards[row], expected + [0.0] * (rewards.shape[1] - length))
        same(rewards[row].sum(), batch.scores[row].item() + sum(penalties))


@given(batch=batches)
def test_05_the_end_token_has_a_gradient_and_padding_has_none(batch: Batch) -> None:
    logp = batch.logp.clone().requires_grad_()
    values = batch.values.clone().requires_grad_()
    rewards = token_rewards(batch.scores, batch.logp, batch.ref, batch.acted, beta=0.1)
    advantages, returns = gae(rewards, batch.values, batch.acted, gamma=1, lam=0.95)
    loss, _ = policy_loss(logp, batch.logp, advantages, batch.acted, clip=0.2)
    (loss + value_loss(values, batch.values, returns, batch.acted, clip=0.2)).backward()  # type: ignore[no-untyped-call]
    for gradient in (logp.grad, values.grad):
        assert gradient is not None
        assert torch.equal(gradient != 0, batch.acted.bool())


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "slope", "clipped"),
    [
        (1.0, 0.7, -0.7, -0.7, 0),
        (1.0, 1.3, -1.2, 0.0, 1),
        (1.0, 1.5, -1.2, 0.0, 1),
        (-1.0, 0.7, 0.8, 0.0, 1),
        (-1.0, 1.3, 1.3, 1.3, 0),
        (-1.0, 1.5, 1.5, 1.5, 0),
    ],
)
def test_06_the_clip_holds_back_only_moves_that_raise_the_objective(
    advantage: float, ratio: float, loss: float, slope: float, clipped: int
) -> None:
    """`slope` is d loss / d log p, which is d loss / d ratio times the ratio."""
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    still = torch.zeros(1, 1, dtype=torch.float64)
    found, count = policy_loss(logp, still, still + advantage, still + 1, clip=0.2)
    found.backward()  # type: ignore[no-untyped-call]
    same(found.detach(), loss)
    same(logp.grad if logp.grad is not None else math.nan, [[slope]])
    assert count == clipped


@given(batch=batches)
def test_06_the_loss_is_the_sum_over_acted_tokens(batch: Batch) -> None:
    found, count = policy_loss(batch.logp, batch.ref, batch.values, batch.acted, clip=0.2)
    total, clipped = 0.0, 0
    for row, length in enumerate(batch.lengths):
        for t in range(length):
            ratio = math.exp((batch.logp[row, t] - batch.ref[row, t]).item())
            held = min(max(ratio, 0.8), 1.2)
            advantage = batch.values[row, t].item()
            total -= min(advantage * ratio, advantage * held)
            clipped += advantage * held < advantage * ratio
    same(found, total)
    assert count == clipped


@given(batch=batches)
def test_07_the_value_loss_takes_the_larger_of_the_plain_and_the_clipped_error(batch: Batch) -> None:
    total = 0.0
    for row, length in enumerate(batch.lengths):
        for t in range(length):
            new, old, wanted = (x[row, t].item() for x in (batch.values, batch.logp, batch.ref))
            held = min(max(new, old - 0.2), old + 0.2)
            total += max((new - wanted) ** 2, (held - wanted) ** 2) / 2
    same(value_loss(batch.values, batch.logp, batch.ref, batch.acted, clip=0.2), total)


@pytest.mark.parametrize(("value", "slope"), [(0.1, -0.9), (0.5, 0.0), (-0.5, -1.5), (3.0, 2.0)])
def test_07_a_value_that_ran_too_far_towards_its_return_has_no_gradient(value: float, slope: float) -> None:
    """Old value 0, return 1, clip 0.2: at 0.5 the clipped error .64 wins over .25, and it is flat."""
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    still = torch.zeros(1, 1, dtype=torch.float64)
    value_loss(values, still, still + 1, still + 1, clip=0.2).backward()  # type: ignore[no-untyped-call]
    same(values.grad if values.grad is not None else math.nan, [[slope]])


rankings = st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=2, max_size=9)


def tensors(ranking: list[tuple[float, int]]) -> tuple[Tensor, Tensor]:
    """Return the scores, with a gradient, and the ranks of drawn pairs."""
    scores, ranks = zip(*ranking, strict=True)
    return torch.tensor(scores, dtype=torch.float64, requires_grad=True), torch.tensor(ranks)


def pairs(ranking: list[tuple[float, int]]) -> list[tuple[int, int]]:
    """Return (better, worse) indices of every pair that is no tie."""
    ordered = [
        (i, j) if ranking[i][1] < ranking[j][1] else (j, i) for i, j in combinations(range(len(ranking)), 2)
    ]
    return [(i, j) for i, j in ordered if ranking[i][1] != ranking[j][1]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(ranking=rankings, margin=st.sampled_from([0.0, 0.5]))
def test_08_k_way_loss_is_the_mean_of_its_pairs_and_ties_give_none(
    ranking: list[tuple[float, int]], margin: float
) -> None:
    losses = [-math.log(sigmoid(ranking[i][0] - ranking[j][0] - margin)) for i, j in pairs(ranking)]
    expected = sum(losses) / len(losses) if losses else 0.0
    same(ranking_loss(*tensors(ranking), margin=margin).detach(), expected)


@given(ranking=rankings)
def test_08_k_way_gradient_is_the_mean_of_pair_gradients(ranking: list[tuple[float, int]]) -> None:
    scores, ranks = tensors(ranking)
    ranking_loss(scores, ranks).backward()  # type: ignore[no-untyped-call]
    expected = [0.0] * len(ranking)
    for i, j in pairs(ranking):
        pull = sigmoid(ranking[j][0] - ranking[i][0]) / len(pairs(ranking))
        expected[i] -= pull
        expected[j] += pull
    same(scores.grad if scores.grad is not None else math.nan, expected)


@given(better=st.floats(-5, 5), worse=st.floats(-5, 5))
def test_08_two_completions_give_the_pairwise_loss(better: float, worse: float) -> None:
    same(ranking_loss(*tensors([(worse, 2), (better, 1)])).detach(), -math.log(sigmoid(better - worse)))


@given(ranking=rankings, shift=st.floats(-10, 10), data=st.data())
def test_08_k_way_loss_is_blind_to_order_and_to_a_shift(
    ranking: list[tuple[float, int]], shift: float, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(ranking))
    moved = [(score + shift, rank) for score, rank in shuffled]
    same(ranking_loss(*tensors(moved)).detach(), ranking_loss(*tensors(ranking)).detach())


@pytest.mark.parametrize(
    ("kl", "beta"),
    [
        (6.0, 0.1),
        (6.6, 0.1 * (1 + 0.1 * 0.064)),
        (60.0, 0.1 * (1 + 0.2 * 0.064)),
        (0.0, 0.1 * (1 - 0.2 * 0.064)),
    ],
)
def test_11_adapted_beta_follows_the_clipped_proportional_error(kl: float, beta: float) -> None:
    same(adapted_beta(0.1, kl=kl, target=6.0, episodes=640, horizon=10_000), beta)


@given(logits=four_reals, temperature=st.sampled_from([0.7, 1.0, 1.5]))
def test_12_log_probs_are_the_log_softmax_of_logits_over_the_temperature(
    logits: list[float], temperature: float
) -> None:
    weights = [math.exp(logit / temperature) for logit in logits]
    chances = [weight / sum(weights) for weight in weights]
    repeated = torch.tensor(logits, dtype=torch.float64).expand(1, 4, 4)
    found = chosen_log_probs(repeated, torch.arange(4)[None], temperature=temperature)
    same(found, [[math.log(chance) for chance in chances]])
    same(entropy(repeated, temperature=temperature)[0, 0], -sum(c * math.log(c) for c in chances))


def test_12_log_probs_of_bfloat16_logits_are_taken_in_float32() -> None:
    logits = torch.randn(1, 4, VOCABULARY, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = torch.tensor([[0, 1, 2, 3]])
    found = chosen_log_probs(logits, tokens, temperature=0.7)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, chosen_log_probs(logits.float(), tokens, temperature=0.7), rtol=0, atol=0
    )


def test_entropy_counts_a_token_that_cannot_be_drawn_as_zero() -> None:
    same(
        entropy(torch.tensor([[[0.0, 0.0, -math.inf]]], dtype=torch.float64), temperature=1.0),
        [[math.log(2)]],
    )


def test_explained_variance_is_1_for_perfect_values_and_not_a_number_for_returns_that_stand_still() -> None:
    returns = torch.tensor([[1.0, 2.0, 1e9]])
    mask = torch.tensor([[1, 1, 0]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.zeros(1, 3), returns, mask) == 0.0
    assert math.isnan(explained_variance(returns, torch.ones(1, 3), mask))
