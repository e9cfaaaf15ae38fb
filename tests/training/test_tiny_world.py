"""The world where every answer is enumerated: first that its exact figures are exact, then PPO against them."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from exact_world import (
    ANSWER_LENGTH,
    DIGITS,
    END,
    PAD,
    World,
    exact_kl,
    expect,
    frontier_reward,
    gold_reward,
    make_prompts,
    new_policy,
    objective,
    penalised,
    tilt,
    train_reference,
)
from ppo_faults import kl_sign_flipped
from tiny_world import (
    GoldReward,
    measure,
    pair_accuracy,
    ppo_config,
    sample_rankings,
    train_ppo,
    train_reward_model,
)
from turnwise_training.episodes import Answers, lay_out
from turnwise_training.losses import chosen_log_probs, kl_k1, kl_k3
from turnwise_training.models import answer_logits

BETA = 0.05
A, B, C, D, E = list(DIGITS)[:5]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def reference(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.set_num_threads(1)
    policy = new_policy(request.param, width=32)
    train_reference(policy, make_prompts(), steps=80)
    return policy


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(make_prompts(count=6))


@pytest.fixture(scope="module")
def ref(world: World, reference: PreTrainedModel) -> Tensor:
    return world.log_probs(reference)


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ([A, B, D, END], 1.0),
        ([B, C, D, END], 1.0),
        ([A, D, END], 0.8),
        ([END], 0.4),
        ([A, B, C, D], 0.8),
        ([B, A, D, END], 0.6),
        ([A, A, D, END], 0.6),
        ([A, E, B, END], 0.2),
        ([PAD, PAD, PAD, PAD], -0.8),
    ],
)
def test_gold_reward_counts_ascending_digits_of_the_prompt_and_the_end(
    answer: list[int], reward: float
) -> None:
    assert gold_reward([D, B, A, C, 2], answer) == reward


def test_every_answer_is_there_once(world: World) -> None:
    rows = {
        tuple(row[:length]) for row, length in zip(world.answers.tolist(), world.acted.sum(-1), strict=True)
    }
    assert len(rows) == len(world.answers) == 1 + 10 + 100 + 1000 + 10_000
    assert all(END not in row[:-1] and (row[-1] == END or len(row) == ANSWER_LENGTH) for row in rows)


def test_the_probabilities_of_all_answers_sum_to_1(ref: Tensor) -> None:
    torch.testing.assert_close(
        ref.exp().sum(-1), torch.ones(len(ref), dtype=torch.float64), rtol=0, atol=1e-12
    )


def log_probs(policy: PreTrainedModel, rows: Answers) -> Tensor:
    logits = answer_logits(policy, rows.tokens, rows.attend, answer_width=rows.width)
    return chosen_log_probs(logits, rows.replies, temperature=1.0) * rows.acted


@torch.no_grad()
def test_enumerated_log_probs_are_those_of_a_left_padded_batch(
    world: World, reference: PreTrainedModel, ref: Tensor
) -> None:
    picked = torch.randint(len(world.answers), (60,), generator=torch.Generator().manual_seed(0))
    prompts = [index % len(world.prompts) for index in range(60)]
    replies = [world.answers[n][world.acted[n]].tolist() for n in picked]
    rows = lay_out([world.prompts[x] for x in prompts], replies, pad_id=PAD)
    found = log_probs(reference, rows).sum(-1).double()
    torch.testing.assert_close(found, ref[prompts, picked], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def moved(world: World, reference: PreTrainedModel) -> PreTrainedModel:
    """A policy some way from the reference."""
    policy = copy.deepcopy(reference)
    train_reference(policy, world.prompts, steps=10, accuracy=1.0, seed=1)
    return policy


@torch.no_grad()
def test_sampled_kl_agrees_with_the_exact_one(
    world: World, reference: PreTrainedModel, moved: PreTrainedModel, ref: Tensor
) -> None:
    torch.manual_seed(0)
    drawn = world.log_probs(moved).exp().multinomial(400, replacement=True)
    prompts = [prompt for prompt in world.prompts for _ in range(400)]
    replies = [world.answers[n][world.acted[n]].tolist() for n in drawn.flatten()]
    rows = lay_out(prompts, replies, pad_id=PAD)
    logp, other = log_probs(moved, rows), log_probs(reference, rows)
    exact = exact_kl(world.log_probs(moved), ref)
    assert exact > 0.05
    for estimator in (kl_k1, kl_k3):
        sampled = estimator(logp, other).sum(-1)
        assert sampled.mean().item() == pytest.approx(
            exact, abs=4 * sampled.std().item() / len(rows.tokens) ** 0.5
        )


def test_the_objective_is_0_at_the_reference_and_1_at_the_tilt(world: World, ref: Tensor) -> None:
    assert objective(ref, ref, world.rewards, beta=BETA) == 0
    assert objective(tilt(ref, world.rewards, beta=BETA), ref, world.rewards, beta=BETA) == 1


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), distance=st.floats(0.01, 3), greed=st.floats(0, 30))
def test_the_tilt_beats_any_other_policy_at_its_kl(
    world: World, ref: Tensor, seed: int, distance: float, greed: float
) -> None:
    noise = torch.randn(ref.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = (ref + distance * noise + greed * world.rewards).log_softmax(-1)
    best = frontier_reward(ref, world.rewards, kl=exact_kl(other, ref))
    assert expect(other, world.rewards) <= best + 1e-9
    optimum = penalised(tilt(ref, world.rewards, beta=BETA), ref, world.rewards, beta=BETA)
    assert penalised(other, ref, world.rewards, beta=BETA) <= optimum


def test_the_frontier_passes_through_the_tilt(world: World, ref: Tensor) -> None:
    policy = tilt(ref, world.rewards, beta=0.3)
    reached = frontier_reward(ref, world.rewards, kl=exact_kl(policy, ref))
    assert reached == pytest.approx(expect(policy, world.rewards), abs=1e-9)


@pytest.fixture(scope="module")
def start(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """A reference as a model directory, and its exact log-probabilities."""
    policy = new_policy("llama")
    train_reference(policy, make_prompts(), steps=80)
    folder = tmp_path_factory.mktemp("reference")
    policy.save_pretrained(folder)
    return folder, world.log_probs(policy)


def test_17_18_the_first_kl_is_0_and_the_first_ratio_is_1(world: World, start: tuple[Path, Tensor]) -> None:
    config = ppo_config(start[0], iterations=1, seed=0, minibatch=128)
    _, (figures,) = train_ppo(world, config, GoldReward())
    assert figures["kl_k1"] == 0
    assert figures["ratio_max"] == 1


@pytest.mark.slow
def test_ppo_comes_near_the_optimum_and_a_flipped_kl_sign_does_not(
    world: World, start: tuple[Path, Tensor]
) -> None:
    folder, ref = start
    config = ppo_config(folder, iterations=30, seed=0)
    policy, _ = train_ppo(world, config, GoldReward())
    assert measure(world, policy, ref, world.rewards).objective > 0.85
    with kl_sign_flipped():
        faulty, _ = train_ppo(world, config, GoldReward())
    assert measure(world, faulty, ref, world.rewards).objective < 0.8


def test_a_reward_model_orders_fresh_answers_as_the_gold_reward_does(
    world: World, start: tuple[Path, Tensor]
) -> None:
    folder, ref = start
    train = sample_rankings(world, ref, answers=6, per_prompt=50, seed=0)
    fresh = sample_rankings(world, ref, answers=6, per_prompt=20, seed=1)
    assert pair_accuracy(train_reward_model(folder, train), fresh) > 0.87
