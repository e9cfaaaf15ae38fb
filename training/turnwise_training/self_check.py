"""What must hold before PPO's first step, and of its engine always; a run in which it does not stops and says why.

A KL that is not 0 or a ratio that is not 1 on the first batch means that two forwards of the same weights disagree:
the figures of every later step would be wrong in the same way, and nobody would see it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from turnwise_training.episodes import Answers, Experience, engine_log_probs
from turnwise_training.errors import RunError
from turnwise_training.losses import chosen_log_probs

TOLERANCE = 1e-5
"""Nats a token, or distance of a ratio from 1: equal forwards give exactly 0 and 1, and one that sums in another order
differs by a few millionths; other weights or dropout differ by far more."""
ENGINE_TOLERANCE = 0.1
"""Mean nats a token between the engine and the training forward; bfloat16 alone gives about a hundredth."""


def check_first_kl(logp: Tensor, ref: Tensor, acted: Tensor) -> None:
    """Raise RunError unless policy and reference agree on every acted token [B, T], but for the last bits."""
    gap = float(torch.where(acted, logp - ref, 0.0).abs().max())
    if not gap <= TOLERANCE:  # true of NaN as well
        raise RunError(
            f"before the first step the policy and the reference differ by up to {gap:.3g} nats a token, and should "
            "not at all: they must start from the same `model`, at one precision, and have no dropout"
        )


def check_first_ratio(largest: float) -> None:
    """Raise RunError unless the largest probability ratio of the first minibatch is 1."""
    if not abs(largest - 1) <= TOLERANCE:
        raise RunError(
            f"the first minibatch's largest ratio is {largest:.6g}, and should be 1: the forward that is trained and "
            "the one that gave the old log-probabilities differ in temperature, padding, precision or dropout"
        )


@torch.no_grad()
def check_engine(
    experience: Experience, forward: Callable[[], tuple[Answers, Tensor, Tensor]], *, temperature: float
) -> float:
    """Return the mean distance, in nats a token, between the engine's log-probabilities and the policy's.

    Raises RunError, naming the setting that differs, where they are far apart. `forward` gives the first b answers and
    the policy's logits [b, T, V] of them, to find the setting; `temperature` is the recipe's.
    """
    engine_logp = engine_log_probs(experience.episodes)
    gap = float((engine_logp - experience.logp)[experience.acted].abs().mean())
    if not gap <= ENGINE_TOLERANCE:
        answers, logits, _ = forward()
        engine_logp = engine_logp[: len(logits), : answers.width].to(logits.device)
        cause = _difference(engine_logp, logits, answers, temperature)
        raise RunError(
            f"the engine's log-probabilities are {gap:.2f} nats a token from the policy's: {cause}"
        )
    return gap


def _difference(engine_logp: Tensor, logits: Tensor, answers: Answers, temperature: float) -> str:
    """Return why an engine's log-probabilities [b, T] of its answers are not the policy's."""

    def differences(at: float) -> Tensor:
        return (engine_logp - chosen_log_probs(logits, answers.replies, temperature=at))[answers.acted]

    gap = float(differences(temperature).abs().mean())
    nearest = min((step / 20 for step in range(2, 41)), key=lambda at: float(differences(at).abs().mean()))
    if float(differences(nearest).abs().mean()) <= min(ENGINE_TOLERANCE, gap / 4):
        return f"it samples at a temperature of about {nearest:g}, the recipe at {temperature:g}: make them equal"
    if _is_truncated(differences(temperature), logits[answers.acted] / temperature, answers):
        return "it finds almost every token likelier: it draws from few tokens only, so turn its top_k and top_p off"
    return "its weights, prompt tokens or position ids are others than the policy's"


def _is_truncated(differences: Tensor, logits: Tensor, answers: Answers) -> bool:
    """Tell whether an engine draws from the likeliest tokens alone, by the log-probabilities of N tokens.

    It then finds each likelier by the same factor, one over the probability of all it draws from, and those are at
    least the tokens that the policy finds no less likely than the drawn one. `logits` are [N, V].
    """
    probabilities = logits.float().softmax(-1)
    drawn = probabilities.gather(1, answers.replies[answers.acted][:, None])
    no_less_likely = torch.where(probabilities >= drawn, probabilities, 0.0).sum(-1)
    fits = (differences > -ENGINE_TOLERANCE) & (torch.exp(-differences) > no_less_likely - ENGINE_TOLERANCE)
    return float(fits.float().mean()) > 0.95
