"""How often one checkpoint's answer is preferred to another's, with intervals and at equal length. Pure functions.

N prompts, R bootstrap samples of them; `preferred` [N] is 1 where the first answer won, 1/2 at a tie, else 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 0.1
"""Keeps the fit finite where one side won every time; it weighs a tenth of one comparison."""
NEWTON_STEPS = 20


def compare(
    scores: Sequence[float],
    other_scores: Sequence[float],
    lengths: Sequence[int],
    other_lengths: Sequence[int],
    *,
    resamples: int,
    seed: int,
) -> dict[str, object]:
    """Return the win rate over another's answers to the same prompts, plain and length-controlled.

    Each has a 95% interval: the middle of `resamples` bootstrap samples of the prompts (Efron, 1979).
    """
    preferred = preferences(scores, other_scores)
    difference = torch.tensor(lengths, dtype=torch.float64) - torch.tensor(other_lengths, dtype=torch.float64)
    weights = bootstrap_weights(len(preferred), resamples=resamples, seed=seed)
    return {
        "prompts": len(preferred),
        "ties": float((preferred == 0.5).double().mean()),
        "win_rate": _with_interval(win_rates(preferred, weights)),
        "length_controlled": _with_interval(length_controlled(preferred, difference, weights)),
    }


def preferences(scores: Sequence[float], other_scores: Sequence[float]) -> Tensor:
    """Return for each prompt 1 where the first score is higher, 1/2 where both are equal, 0 otherwise."""
    difference = torch.tensor(scores, dtype=torch.float64) - torch.tensor(other_scores, dtype=torch.float64)
    return (difference.sign() + 1) / 2


def bootstrap_weights(count: int, *, resamples: int, seed: int) -> Tensor:
    """Return how often each prompt is drawn: [1 + R, N], the first row of ones, the others drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples, count, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    return torch.cat([torch.ones(1, count, dtype=torch.float64), weights])


def win_rates(preferred: Tensor, weights: Tensor) -> Tensor:
    """Return the share of wins, a tie counted as half, under each row of `weights`."""
    return weights @ preferred / weights.sum(-1)


def length_controlled(preferred: Tensor, difference: Tensor, weights: Tensor) -> Tensor:
    """Return the win rate two answers of one length would have, under each row of `weights` [S, N].

    Fits P(preferred) = sigmoid(a + b * tanh(d / std d)) with `difference` d [N] in length, and reads it at d = 0.
    Source: AlpacaEval 2 (arXiv 2404.04475), section 3, without the term for a prompt's difficulty, which needs the
    answers of many models.
    """
    spread = difference.std(correction=0)
    scaled = torch.tanh(difference / spread) if spread > 0 else torch.zeros_like(difference)
    inputs = torch.stack([torch.ones_like(scaled), scaled], -1)
    coefficients = torch.zeros(len(weights), 2, dtype=torch.float64)
    ridge = RIDGE * torch.eye(2, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        predicted = torch.sigmoid(coefficients @ inputs.T)
        gradient = (weights * (preferred - predicted)) @ inputs - RIDGE * coefficients
        curvature = torch.einsum("sn,ni,nj->sij", weights * predicted * (1 - predicted), inputs, inputs)
        coefficients = coefficients + torch.linalg.solve(curvature + ridge, gradient)
    return torch.sigmoid(coefficients[:, 0])


def _with_interval(rates: Tensor) -> dict[str, float]:
    low, high = torch.quantile(rates[1:], torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"rate": float(rates[0]), "low": low, "high": high}
