"""The formulas of the ladder as pure functions of tensors; they know neither models nor batches nor ranks.

Letters: B answers, T tokens an answer at most, V vocabulary, K completions of one prompt. `acted` [B, T] is 1 on
every sampled token, the end token included, and 0 after it. Sums are left unnormalised: the caller divides by the
count of the whole minibatch over all ranks, so that micro-batches never change a result.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def chosen_log_probs(logits: Tensor, tokens: Tensor, *, temperature: float) -> Tensor:
    """Return log softmax(`logits` / `temperature`) at `tokens`: [B, T] from logits [B, T, V], in nats."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    picked = scaled.gather(-1, tokens[..., None])[..., 0]
    return picked - scaled.logsumexp(-1)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the entropy [B, T] of the sampling distribution, in nats."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    nats: Tensor = torch.special.entr(functional.softmax(scaled, -1)).sum(-1)
    return nats


def ranking_loss(scores: Tensor, ranks: Tensor, *, margin: float = 0.0) -> Tensor:
    """Return -mean over pairs of log sigmoid(s_better - s_worse - margin) of one prompt's K completions.

    `scores` and `ranks` are [K]; the lowest rank is the best, equal ranks are a tie and give no pair. A prompt without
    a pair gives 0. Source: InstructGPT (arXiv 2203.02155), equation 1; the margin is Llama 2's (arXiv 2307.09288).
    """
    better = ranks[:, None] < ranks[None, :]
    difference = scores[:, None] - scores[None, :] - margin
    return -functional.logsigmoid(difference)[better].sum() / better.sum().clamp(min=1)


def kl_k1(logp: Tensor, ref: Tensor) -> Tensor:
    """Return the estimator log(p/q) of KL(p, q) at samples of p: unbiased, of either sign."""
    return logp - ref


def kl_k2(logp: Tensor, ref: Tensor) -> Tensor:
    """Return the estimator (log(p/q))^2 / 2: biased, never negative."""
    return (logp - ref) ** 2 / 2


def kl_k3(logp: Tensor, ref: Tensor) -> Tensor:
    """Return the estimator q/p - 1 - log(q/p): unbiased, never negative. Source: Schulman, "Approximating KL", 2020."""
    return torch.expm1(ref - logp) - (ref - logp)


def last_acted(acted: Tensor) -> Tensor:
    """Return the index [B] of each answer's last sampled token."""
    return acted.sum(-1).long() - 1


def token_rewards(scores: Tensor, logp: Tensor, ref: Tensor, acted: Tensor, *, beta: float) -> Tensor:
    """Return rewards [B, T]: -beta * k1 on every acted token, and the score [B] on the last acted one."""
    penalty = torch.where(acted.bool(), -beta * kl_k1(logp, ref), 0.0)
    return penalty.scatter_add(1, last_acted(acted)[:, None], scores.to(penalty.dtype)[:, None])


def gae(rewards: Tensor, values: Tensor, acted: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both [B, T], 0 after each answer's end.

    `values[:, t]` is the value of the state before token t; after the last acted token it is 0.
    Source: Schulman et al. (arXiv 1506.02438), equation 16.
    """
    values = torch.where(acted.bool(), values, 0.0)  # padding may hold anything, infinities too
    rewards = torch.where(acted.bool(), rewards, 0.0)
    advantages = torch.zeros_like(values)
    after = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        after = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * after
        advantages[:, t] = after
        next_value = values[:, t]
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` with mean 0 and population variance 1 over `mask`, and 0 elsewhere.

    Values that differ by rounding alone (a deviation under 1e-6) are centred and not blown up to noise of size 1.
    """
    kept = values[mask.bool()]
    centred = torch.where(mask.bool(), values - kept.mean(), 0.0)
    deviation = kept.std(correction=0)
    return centred / deviation if deviation > 1e-6 else centred


def policy_loss(
    logp: Tensor, old: Tensor, advantages: Tensor, acted: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Return the summed clipped surrogate loss and the number of clipped tokens.

    Source: Schulman et al. (arXiv 1707.06347), equation 7, with the sign turned: this is minimised.
    """
    ratio = torch.exp(torch.where(acted.bool(), logp - old, 0.0))
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    losses = torch.maximum(unclipped, clipped) * acted
    return losses.sum(), ((clipped > unclipped) * acted).sum()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, acted: Tensor, *, clip: float) -> Tensor:
    """Return half the summed squared error, the larger of the plain and the clipped one at each token."""
    held = old + (values - old).clamp(-clip, clip)
    errors = torch.maximum((values - returns) ** 2, (held - returns) ** 2)
    return torch.where(acted.bool(), errors, 0.0).sum() / 2


def adapted_beta(beta: float, *, kl: float, target: float, episodes: int, horizon: int) -> float:
    """Return the KL coefficient after `episodes` at a mean KL of `kl` nats an answer.

    Source: Ziegler et al. (arXiv 1909.08593), section 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * episodes / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - var(returns - values) / var(returns) over `mask`; NaN where returns do not vary."""
    kept, wanted = values[mask.bool()], returns[mask.bool()]
    variance = float(wanted.var(correction=0))
    return 1 - float((wanted - kept).var(correction=0)) / variance if variance > 0 else math.nan
