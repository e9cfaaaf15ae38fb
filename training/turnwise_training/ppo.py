"""PPO with the pretraining mix: InstructGPT (arXiv 2203.02155), section 3.5, by the details of arXiv 2403.17031.

    tokens, attend [B, P+T]   prompts left-padded to P, answers right-padded to T; the mask is explicit
    acted [B, T]              1 on every sampled token, the end token included, 0 after it
    logp, ref, value [B, T]   from the logits that predicted token t; the value of the state before token t
    reward                    -beta * (logp - ref) on acted tokens; the score added on the last one; V after it is 0
    old log-probs             recomputed by the training forward, not the engine's
    means and whitening       over the acted tokens of the whole batch or minibatch, all processes and micro-batches

An iteration samples a `batch` of answers, scores them, runs the three models over them, and takes one optimizer step
a `minibatch`; a `micro` is what one forward holds and never changes the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from turnwise_training import losses
from turnwise_training.actors import Actors
from turnwise_training.averages import WeightAverage
from turnwise_training.chat import Encoder
from turnwise_training.config import PPOConfig
from turnwise_training.episodes import Answers, Episode, Experience, engine_log_probs, lay_out
from turnwise_training.loop import Batch, Part, accumulate, update
from turnwise_training.monitors import iteration_figures
from turnwise_training.optimizers import Optimizers, rate_share
from turnwise_training.parallel import Parallel
from turnwise_training.progress import Phases
from turnwise_training.prompts import EncodedPrompt, prompt_indices
from turnwise_training.ptx import PretrainingMix
from turnwise_training.rewards import Reward
from turnwise_training.rollout import RolloutEngine, roll_out, rollout_key
from turnwise_training.self_check import check_engine, check_first_kl, check_first_ratio

Ratios = dict[tuple[int, ...], tuple[float, float]]
"""For the rows of each micro-batch, the ratio (or its inverse) farthest from 1 and the number of clipped tokens."""


@dataclass
class PPO:
    """The learner: owns the optimizers, the KL coefficient and the average of the policy's weights."""

    config: PPOConfig
    actors: Actors
    engine: RolloutEngine
    reward: Reward
    encoder: Encoder
    parallel: Parallel
    prompts: Sequence[EncodedPrompt]
    ptx: PretrainingMix | None = None
    held_out_reward: Reward | None = None
    phases: Phases = field(default_factory=Phases)

    def __post_init__(self) -> None:
        self.beta = self.config.beta
        self.average = WeightAverage(self.actors.policy, decay=self.config.ema)
        self.policy_optimizers = Optimizers(self.actors.policy, self.config.policy)
        self.value_optimizers = Optimizers(self.actors.value, self.config.value)

    def iterate(self, iteration: int) -> tuple[dict[str, float], list[Episode]]:
        """Sample, score, look back and learn once; return the iteration's figures and episodes."""
        with self.phases.measure("rollout"):
            episodes = self._roll_out(iteration)
        with self.phases.measure("score"):
            scores = self._scores(self.reward, episodes)
            held_out = None if self.held_out_reward is None else self._scores(self.held_out_reward, episodes)
        with self.phases.measure("forward"):
            experience = self._look_back(iteration, episodes, scores)
            forward = partial(self._forward, episodes, list(range(self.config.micro)))
            engine_gap = check_engine(experience, forward, temperature=self.config.temperature)
        figures = iteration_figures(experience, scores, held_out)
        with self.phases.measure("update"):
            figures.update(engine_gap=engine_gap, beta=self.beta, **self._learn(iteration, experience))
            self.engine.refresh(self.actors.language_model)
        for phase in ("rollout", "score", "forward", "update"):
            self.phases.count(phase, int(experience.acted.sum()))
        if self.config.adaptive_kl is not None:
            target, horizon = self.config.adaptive_kl.target, self.config.adaptive_kl.horizon
            kl = figures["kl_k1"]
            self.beta = losses.adapted_beta(
                self.beta, kl=kl, target=target, episodes=len(episodes), horizon=horizon
            )
        return figures, episodes

    def _roll_out(self, iteration: int) -> list[Episode]:
        config = self.config
        indices = prompt_indices(iteration, batch=config.batch, count=len(self.prompts), seed=config.seed)
        keys = [rollout_key(config.seed, iteration, row) for row in range(config.batch)]
        asked = list(zip((self.prompts[index] for index in indices), keys, strict=True))
        return roll_out(
            self.engine,
            asked,
            self.encoder,
            self.parallel,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
        )

    def _scores(self, reward: Reward, episodes: list[Episode]) -> Tensor:
        return torch.tensor(self.parallel.spread(episodes, reward.score))

    def _minibatches(self, iteration: int, epoch: int, episodes: list[Episode]) -> list[list[list[int]]]:
        """Return the rows of each micro-batch of each minibatch, in an order of this iteration and epoch.

        Rows of like length share a micro-batch, which saves padding and changes nothing else.
        """
        config = self.config
        generator = torch.Generator().manual_seed(rollout_key(config.seed, iteration, -1 - epoch))
        order = torch.randperm(len(episodes), generator=generator).tolist()
        lengths = [len(episode.prompt_ids) + len(episode.sample.ids) for episode in episodes]
        minibatches = [
            sorted(order[at : at + config.minibatch], key=lengths.__getitem__)
            for at in range(0, len(order), config.minibatch)
        ]
        return [
            [rows[at : at + config.micro] for at in range(0, len(rows), config.micro)] for rows in minibatches
        ]

    def _look_back(self, iteration: int, episodes: list[Episode], scores: Tensor) -> Experience:
        """Run the models over the answers, in the micro-batches they are trained in, and credit each token."""
        config = self.config
        micros = [micro for minibatch in self._minibatches(iteration, 0, episodes) for micro in minibatch]
        facts = self.parallel.spread(micros, lambda part: [self._run_models(episodes, rows) for rows in part])
        lengths = torch.tensor([len(episode.sample.ids) for episode in episodes])
        acted = torch.arange(int(lengths.max())) < lengths[:, None]
        table = torch.zeros(4, *acted.shape, dtype=facts[0].dtype)
        for rows, found in zip(micros, facts, strict=True):
            table[:, rows, : found.shape[2]] = found
        logp, ref, entropy, values = table
        if iteration == 0:
            check_first_kl(logp, ref, acted)
        unfinished = torch.tensor([not episode.sample.ended for episode in episodes])
        scores = scores - config.missing_eos_penalty * unfinished
        rewards = losses.token_rewards(scores, logp, ref, acted, beta=self.beta)
        advantages, returns = losses.gae(rewards, values, acted, gamma=config.gamma, lam=config.lam)
        advantages = losses.whiten(advantages, acted)
        if (cap := config.engine.importance_cap) is not None:
            advantages = advantages * torch.exp(logp - engine_log_probs(episodes)).clamp(max=cap)
        return Experience(episodes, acted, logp, ref, entropy, values, advantages, returns)

    @torch.no_grad()
    def _run_models(self, episodes: list[Episode], rows: list[int]) -> Tensor:
        """Return log-probs, reference log-probs, entropy and values of some rows: [4, b, t], 0 after the answers."""
        at = {"temperature": self.config.temperature}
        answers, logits, values = self._forward(episodes, rows)
        logp = losses.chosen_log_probs(logits, answers.replies, **at)
        with self._autocast():
            ref = losses.chosen_log_probs(self.actors.reference_logits(answers), answers.replies, **at)
        found = torch.stack([logp, ref, losses.entropy(logits, **at), values])
        return torch.where(answers.acted, found, 0.0).cpu()

    def _forward(self, episodes: list[Episode], rows: list[int]) -> tuple[Answers, Tensor, Tensor]:
        """Return some rows as tensors, the policy's logits [b, t, V] of them and the values [b, t]."""
        prompts = [episodes[row].prompt_ids for row in rows]
        replies = [episodes[row].sample.ids for row in rows]
        answers = lay_out(prompts, replies, pad_id=self.encoder.pad_id).to(self.parallel.device)
        with self._autocast():
            return answers, self.actors.policy_logits(answers), self.actors.values(answers)

    def _learn(self, iteration: int, experience: Experience) -> dict[str, float]:
        """Take one optimizer step of both networks a minibatch; return the means of what was seen on the way."""
        config, episodes = self.config, experience.episodes
        epochs = range(config.inner_epochs)
        plan = [micros for epoch in epochs for micros in self._minibatches(iteration, epoch, episodes)]
        first = iteration * len(plan)
        shares = [rate_share(iteration, config.iterations, each) for each in (config.policy, config.value)]
        seen = [self._step(step, micros, experience, shares) for step, micros in enumerate(plan, first)]
        worst = max(line.pop("ratio_max") for line in seen)
        return {name: fmean(line[name] for line in seen) for name in seen[0]} | {"ratio_max": worst}

    def _step(
        self, step: int, micros: list[list[int]], experience: Experience, shares: list[float]
    ) -> dict[str, float]:
        """Accumulate the gradients of PPO and of the pretraining mix in one buffer and step once."""
        config, actors, parallel = self.config, self.actors, self.parallel
        count = int(experience.acted[[row for micro in micros for row in micro]].sum())
        ratios: Ratios = {}
        loss_of = partial(self._micro_loss, experience, ratios)
        loss = accumulate(loss_of, Batch(micros, count, count), parallel)
        line = {"loss": loss, **_ratio_figures(parallel, ratios, count)}
        if step == 0:
            check_first_ratio(line["ratio_max"])
        if self.ptx is not None:
            line |= self.ptx.add_gradient(step, actors.policy)
        policy_clip, value_clip = config.policy.grad_clip, config.value.grad_clip
        norm = update(actors.policy, self.policy_optimizers, parallel, share=shares[0], clip=policy_clip)
        value_norm = update(actors.value, self.value_optimizers, parallel, share=shares[1], clip=value_clip)
        self.average.follow(actors.policy)
        return {**line, "grad_norm": norm, "value_grad_norm": value_norm}

    def _micro_loss(self, experience: Experience, ratios: Ratios, rows: list[int]) -> Tensor:
        """Return the summed loss of both networks on some rows, and note the farthest ratio and the clipped tokens."""
        config = self.config
        answers, logits, values = self._forward(experience.episodes, rows)
        acted = answers.acted
        old, old_values, advantages, returns = (
            table[rows, : answers.width].to(acted.device)
            for table in (experience.logp, experience.values, experience.advantages, experience.returns)
        )
        logp = losses.chosen_log_probs(logits, answers.replies, temperature=config.temperature)
        policy, clipped = losses.policy_loss(logp, old, advantages, acted, clip=config.clip)
        value = losses.value_loss(values, old_values, returns, acted, clip=config.value_clip)
        farthest = torch.where(acted, logp - old, 0.0).detach().abs().max().exp()
        ratios[tuple(rows)] = (float(farthest), float(clipped))
        return policy + config.value_coef * value

    def _autocast(self) -> torch.autocast:
        device = self.parallel.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def parts(self) -> dict[str, Part]:
        """Return everything a resumed run needs of the learner."""
        return {
            "policy": self.actors.policy,
            "value": self.actors.value,
            "policy_optimizers": self.policy_optimizers,
            "value_optimizers": self.value_optimizers,
            "average": self.average,
            "coefficients": self,
        }

    def state_dict(self) -> dict[str, float]:
        """Return the KL coefficient, which follows the KL where it is adaptive."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a state of `state_dict`; the engine takes over the loaded weights."""
        self.beta = state["beta"]
        self.engine.refresh(self.actors.language_model)


def _ratio_figures(parallel: Parallel, ratios: Ratios, count: int) -> dict[str, float]:
    """Return the farthest ratio and the share of clipped tokens of a minibatch, over all processes."""
    merged = {rows: facts for part in parallel.gather(ratios) for rows, facts in part.items()}
    return {
        "ratio_max": max(farthest for farthest, _ in merged.values()),
        "clip_fraction": sum(clipped for _, clipped in merged.values()) / count,
    }
