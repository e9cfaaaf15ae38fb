"""The faults PPO is most often written with, put into the trainer on purpose, so that a bar is known to catch them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import Tensor

from turnwise_training import losses, ppo
from turnwise_training.episodes import Answers, Episode, lay_out
from turnwise_training.ppo import PPO

WRONG_TEMPERATURE = 0.7


@contextmanager
def self_checks_off() -> Iterator[None]:
    """Let a fault train that the checks of the first iteration would refuse."""
    with (
        patch.object(ppo, "check_first_kl"),
        patch.object(ppo, "check_first_ratio"),
        patch.object(ppo, "check_engine", return_value=0.0),
    ):
        yield


@contextmanager
def kl_sign_flipped() -> Iterator[None]:
    """Pay for every nat of KL in place of charging for it."""

    def rewards(scores: Tensor, logp: Tensor, ref: Tensor, acted: Tensor, *, beta: float) -> Tensor:
        return right(scores, logp, ref, acted, beta=-beta)

    right = losses.token_rewards
    with patch.object(losses, "token_rewards", rewards):
        yield


@contextmanager
def old_log_probs_at_another_temperature() -> Iterator[None]:
    """Take the old log-probabilities at a temperature nobody sampled at."""

    @torch.no_grad()
    def run_models(learner: PPO, episodes: list[Episode], rows: list[int]) -> Tensor:
        found = right(learner, episodes, rows)
        answers = lay_out(
            [episodes[row].prompt_ids for row in rows],
            [episodes[row].sample.ids for row in rows],
            pad_id=learner.encoder.pad_id,
        )
        logits = learner.actors.policy_logits(answers)
        old = losses.chosen_log_probs(logits, answers.replies, temperature=WRONG_TEMPERATURE)
        found[0] = torch.where(answers.acted, old, 0.0)
        return found

    right = PPO._run_models  # noqa: SLF001 (a fault sits inside)
    with patch.object(PPO, "_run_models", run_models), self_checks_off():
        yield


@contextmanager
def score_on_the_first_token() -> Iterator[None]:
    """Pay the score before the answer is there, with lam 0, so that no later token hears of it."""

    def rewards(scores: Tensor, logp: Tensor, ref: Tensor, acted: Tensor, *, beta: float) -> Tensor:
        found = rewarded(torch.zeros_like(scores), logp, ref, acted, beta=beta)
        return torch.cat([found[:, :1] + scores[:, None], found[:, 1:]], dim=1)

    def advantages(
        rewards: Tensor, values: Tensor, acted: Tensor, *, gamma: float, lam: float
    ) -> tuple[Tensor, Tensor]:
        return credited(rewards, values, acted, gamma=gamma, lam=lam * 0)

    rewarded, credited = losses.token_rewards, losses.gae
    with patch.object(losses, "token_rewards", rewards), patch.object(losses, "gae", advantages):
        yield


@contextmanager
def end_token_masked(end: int) -> Iterator[None]:
    """Leave the end token out of the mask that is trained on, as a mask made from token ids does."""

    def without_end(prompts: Sequence[list[int]], replies: Sequence[list[int]], *, pad_id: int) -> Answers:
        laid = lay_out(prompts, replies, pad_id=pad_id)
        return replace(laid, acted=laid.acted & (laid.replies != end))

    with patch.object(ppo, "lay_out", without_end), self_checks_off():
        yield


@contextmanager
def advantage_one_token_late() -> Iterator[None]:
    """Credit each token with what the one before it earned."""

    def late(
        rewards: Tensor, values: Tensor, acted: Tensor, *, gamma: float, lam: float
    ) -> tuple[Tensor, Tensor]:
        advantages, returns = right(rewards, values, acted, gamma=gamma, lam=lam)
        return advantages.roll(1, dims=1) * acted, returns

    right = losses.gae
    with patch.object(losses, "gae", late):
        yield


def faults(*, end: int) -> Mapping[str, Callable[[], AbstractContextManager[None]]]:
    """Return every fault by name; each is a context inside which a learner has it."""
    return {
        "KL sign flipped": kl_sign_flipped,
        f"old log-probs at temperature {WRONG_TEMPERATURE}": old_log_probs_at_another_temperature,
        "score on the first token, lam 0": score_on_the_first_token,
        "end token masked": lambda: end_token_masked(end),
        "advantage one token late": advantage_one_token_late,
    }
