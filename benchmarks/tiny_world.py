"""Trains in a world where every answer is enumerated, and prints how near the optimum PPO comes.

The bars are those of the specification: the objective (0 for the reference, 1 for the optimum) under the gold reward,
a reward model's pair accuracy, and PPO's share of the frontier's gain in learned reward at the KL it reaches.
Usage: python benchmarks/tiny_world.py [--family gpt2] [--faults]
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import cast, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from exact_world import (
    ANSWER_LENGTH,
    END,
    PAD,
    Family,
    World,
    exact_kl,
    expect,
    frontier_reward,
    gold_reward,
    make_prompts,
    new_policy,
    objective,
    train_reference,
)
from ppo_faults import faults
from turnwise_training.actors import build_actors
from turnwise_training.chat import Encoder
from turnwise_training.config import EngineSettings, Optimization, PPOConfig
from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode
from turnwise_training.loop import accumulate, update
from turnwise_training.models import new_reward_model
from turnwise_training.optimizers import Optimizers, rate_share
from turnwise_training.parallel import Parallel
from turnwise_training.ppo import PPO
from turnwise_training.prompts import EncodedPrompt
from turnwise_training.ranked import Dropped, Order, RankedPrompt
from turnwise_training.reward import judge, reward_loss
from turnwise_training.reward_data import Plan
from turnwise_training.rewards import Reward
from turnwise_training.rollout import build_engine
from turnwise_training.scoring import score_ids

BETA = 0.05
SEEDS = (0, 1, 2)
BARS = {60: 0.92, 120: 0.96}
"""The least mean objective after so many iterations of 128 rollouts."""
PAIR_ACCURACY_BAR = 0.87
FRONTIER_BAR = 0.90


class WorldEncoder:
    """What PPO asks of a tokenizer."""

    pad_id = PAD
    end_ids = frozenset({END})

    def decode(self, ids: Sequence[int]) -> str:
        """Return tokens as numbers."""
        return " ".join(str(token) for token in ids if token not in (PAD, END))


class GoldReward:
    """The world's own reward."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the reward of each answer."""
        return [gold_reward(episode.prompt_ids, episode.sample.ids) for episode in episodes]


@dataclass(frozen=True)
class LearnedReward:
    """The scores of a reward model."""

    model: PreTrainedModel

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the score of each answer."""
        return score_ids(self.model, [episode.prompt_ids + episode.sample.ids for episode in episodes])


def ppo_config(
    reference: Path,
    *,
    iterations: int,
    seed: int,
    beta: float = BETA,
    value_model: Path | None = None,
    minibatch: int = 16,
) -> PPOConfig:
    """Return the settings that suit the world: 128 rollouts an iteration, rates for a policy of 40,000 weights."""

    def rate(learning_rate: float) -> Optimization:
        return Optimization(
            learning_rate=learning_rate,
            muon_learning_rate=0.0,
            weight_decay=0.0,
            eps=1e-5,
            warmup_steps=10,
            decay_share=0.9,
        )

    return PPOConfig(
        name="tiny-world",
        model=reference,
        output=reference / "ppo",
        prompts={},
        rewards=(),
        value_model=value_model,
        iterations=iterations,
        batch=128,
        minibatch=minibatch,
        micro=minibatch,
        max_new_tokens=ANSWER_LENGTH,
        beta=beta,
        value_coef=1.0,
        missing_eos_penalty=0.0,
        ema=0.0,
        policy=rate(1e-3),
        value=rate(3e-3),
        engine=EngineSettings(batch=128),
        seed=seed,
        precision="float32",
    )


def train_ppo(
    world: World, config: PPOConfig, reward: Reward
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Return the policy that PPO exports and the figures of its iterations."""
    parallel = Parallel()
    encoder = cast("Encoder", WorldEncoder())
    actors = build_actors(config, parallel)
    engine = build_engine(config, actors.language_model, encoder, parallel)
    prompts = [EncodedPrompt(Prompt(()), ids) for ids in world.prompts]
    learner = PPO(config, actors, engine, reward, encoder, parallel, prompts)
    figures = [learner.iterate(iteration)[0] for iteration in range(config.iterations)]
    learner.average.copy_to(actors.policy)
    return actors.policy, figures


def sample_rankings(
    world: World, ref: Tensor, *, answers: int, per_prompt: int, seed: int
) -> list[RankedPrompt]:
    """Return rankings by the gold reward of different answers of the reference, those of ties alone left out."""
    rng = torch.Generator().manual_seed(seed)
    drawn = (ref.exp() + 1e-9).tile(per_prompt, 1).multinomial(answers, generator=rng)
    rankings = []
    for number, indices in enumerate(drawn.tolist()):
        x = number % len(world.prompts)
        ids = [world.prompts[x] + world.answers[n][world.acted[n]].tolist() for n in indices]
        gains = [world.rewards[x, n].item() for n in indices]
        order = sorted(range(answers), key=lambda index: -gains[index])
        ranks = [0] * answers
        for rank, (_, tied) in enumerate(groupby(order, key=lambda index: gains[index])):
            for index in tied:
                ranks[index] = rank
        if max(ranks):
            rankings.append(
                RankedPrompt("world", ids, [None] * answers, [Order(list(range(answers)), ranks, 0.0, None)])
            )
    return rankings


def train_reward_model(
    reference: Path, rankings: list[RankedPrompt], *, epochs: int = 16, seed: int = 0
) -> PreTrainedModel:
    """Return a reward model of the rankings."""
    parallel = Parallel()
    model = new_reward_model(reference, seed=seed)
    settings = Optimization(learning_rate=1e-3, muon_learning_rate=0.0, weight_decay=0.0, decay_share=0.9)
    optimizers = Optimizers(model, settings)
    plan = Plan(rankings, [], Dropped(), batch=32, epochs=epochs)
    loss = reward_loss(model.train(), precision="float32")
    steps = epochs * plan.steps_per_epoch
    for step, batch in enumerate(plan.batches(seed=seed, micro_tokens=100_000)):
        accumulate(loss, batch, parallel)
        update(model, optimizers, parallel, share=rate_share(step, steps, settings), clip=1.0)
    return model.eval()


def pair_accuracy(model: PreTrainedModel, rankings: list[RankedPrompt]) -> float:
    """Return the share of pairs that a reward model orders as the gold reward does."""
    accuracy = cast("dict[str, float]", judge(model, rankings)["accuracy"])
    return accuracy["share"]


def learned_rewards(world: World, model: PreTrainedModel) -> Tensor:
    """Return a reward model's score [X, N] of every answer, in float64."""
    replies = [row[on].tolist() for row, on in zip(world.answers, world.acted, strict=True)]
    scores = [score_ids(model, [prompt + reply for reply in replies]) for prompt in world.prompts]
    return torch.tensor(scores, dtype=torch.float64)


def standardise(world: World, model: PreTrainedModel, ref: Tensor) -> Tensor:
    """Give a reward model's scores the mean and deviation of the gold reward under the reference; return them."""
    raw = learned_rewards(world, model)
    gold_mean, mean = expect(ref, world.rewards), expect(ref, raw)
    variances = expect(ref, (world.rewards - gold_mean) ** 2), expect(ref, (raw - mean) ** 2)
    spread = math.sqrt(variances[0] / variances[1])
    model.config.reward_scale = spread
    model.config.reward_bias = gold_mean - spread * mean
    return gold_mean + spread * (raw - mean)


@dataclass(frozen=True)
class Outcome:
    """What a policy reaches, exactly."""

    objective: float
    reward: float
    kl: float
    frontier_share: float
    """Its gain in reward over the reference, as a share of the best gain at its KL."""


def measure(world: World, policy: PreTrainedModel, ref: Tensor, rewards: Tensor) -> Outcome:
    """Return what a policy reaches under `rewards` [X, N]."""
    logp = world.log_probs(policy)
    kl, start, reward = exact_kl(logp, ref), expect(ref, rewards), expect(logp, rewards)
    best = frontier_reward(ref, rewards, kl=kl)
    share = (reward - start) / (best - start)
    return Outcome(objective(logp, ref, rewards, beta=BETA), reward, kl, share)


class Benchmark:
    """The world, its reference and the table."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.world = World.make(make_prompts())
        self.folder = folder
        policy = new_policy(family)
        train_reference(policy, self.world.prompts)
        policy.save_pretrained(folder / "reference")
        self.ref = self.world.log_probs(policy)

    def row(self, name: str, outcome: Outcome, note: str = "") -> None:
        """Print one line of the table."""
        figures = (
            f"{outcome.objective:9.3f} {outcome.reward:8.3f} {outcome.kl:7.3f} {outcome.frontier_share:9.3f}"
        )
        print(f"{name:36}{figures}  {note}", flush=True)

    def gold(self, iterations: int, seed: int) -> Outcome:
        """Train on the gold reward and print what it reaches."""
        started = time.monotonic()
        config = ppo_config(self.folder / "reference", iterations=iterations, seed=seed)
        policy, figures = train_ppo(self.world, config, GoldReward())
        outcome = measure(self.world, policy, self.ref, self.world.rewards)
        note = f"first KL {figures[0]['kl_k1']:g}, {time.monotonic() - started:.0f} s"
        self.row(f"gold, {iterations} iterations, seed {seed}", outcome, note)
        return outcome

    def learned(self) -> None:
        """Train a reward model on rankings, then PPO on it, and print both against their bars."""
        train, held_out = (
            sample_rankings(self.world, self.ref, answers=6, per_prompt=count, seed=seed)
            for seed, count in ((0, 40), (1, 4))
        )
        model = train_reward_model(self.folder / "reference", train)
        rewards = standardise(self.world, model, self.ref)
        model.save_pretrained(self.folder / "reward")
        print(
            f"pair accuracy of the reward model: {pair_accuracy(model, held_out):.3f} (bar {PAIR_ACCURACY_BAR})"
        )
        for seed in SEEDS:
            config = ppo_config(
                self.folder / "reference", iterations=60, seed=seed, value_model=self.folder / "reward"
            )
            policy, _ = train_ppo(self.world, config, LearnedReward(model))
            outcome = measure(self.world, policy, self.ref, rewards)
            gold = expect(self.world.log_probs(policy), self.world.rewards)
            self.row(f"learned, 60 iterations, seed {seed}", outcome, f"gold {gold:.3f}, bar {FRONTIER_BAR}")

    def faulty(self) -> None:
        """Print what the typical faults reach."""
        for name, fault in faults(end=END).items():
            config = ppo_config(self.folder / "reference", iterations=60, seed=0)
            with fault():
                policy, _ = train_ppo(self.world, config, GoldReward())
            self.row(name, measure(self.world, policy, self.ref, self.world.rewards))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=get_args(Family), default="llama")
    parser.add_argument("--faults", action="store_true", help="also print what faulty trainers reach")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(options.family, Path(folder))
        print(f"{'':36}objective   reward      KL  frontier")
        benchmark.row("reference", Outcome(0.0, expect(benchmark.ref, benchmark.world.rewards), 0.0, 0.0))
        for iterations, bar in BARS.items():
            mean = fmean(benchmark.gold(iterations, seed).objective for seed in SEEDS)
            print(f"mean objective at {iterations} iterations: {mean:.3f} (bar {bar})")
        benchmark.learned()
        if options.faults:
            benchmark.faulty()


if __name__ == "__main__":
    main()
