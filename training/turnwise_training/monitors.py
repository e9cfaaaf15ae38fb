"""What one iteration of PPO tells about itself, and the alarms that go off before its reward is hacked.

Pure functions of the global batch: B answers, T tokens an answer at most; `acted` [B, T] is 1 on sampled tokens.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

from turnwise_training.episodes import Episode, Experience
from turnwise_training.evaluate.texts import distinct, has_list, repetition
from turnwise_training.losses import explained_variance, kl_k1, kl_k3

FIRST_ITERATIONS = 3
"""Later lengths are compared with the mean of these."""
WINDOW = 10
"""Scores of this many iterations are compared with those of as many before them."""

MESSAGES = {
    "kl": "the policy is {kl_k1:.1f} nats an answer from the reference, over kl_max = {kl_max:g}: its score no longer "
    "means what people meant; raise beta, lower policy.learning_rate or stop earlier",
    "unfinished": "{unfinished:.0%} of the answers reach max_new_tokens without ending: the policy forgets to stop; "
    "raise missing_eos_penalty or max_new_tokens",
    "entropy": "entropy fell to {entropy:.2f} nats a token from {first_entropy:.2f}: the policy settles on few "
    "answers; raise beta or lower policy.learning_rate",
    "length": "answers are {length_mean:.0f} tokens long and were {first_length:.0f}: the score may pay for length; "
    "see score_length_correlation, then balance lengths in the rankings or raise beta",
    "proxy": "over {iterations} iterations the score rose and the held-out reward model's fell: the policy exploits "
    "its reward model; go back to an earlier step and raise beta, or train the reward model on these answers",
}
"""What each alarm means and what to change."""


def iteration_figures(
    experience: Experience, scores: Tensor, held_out_scores: Tensor | None
) -> dict[str, float]:
    """Return the figures of one iteration by name; where returns, scores or lengths are all equal, two are missing.

    `scores` and `held_out_scores` are [B]. KL, length and repetition are means an answer, `kl_token` and `entropy`
    means an acted token, all in nats.
    """
    acted = experience.acted
    undefined_at_times = {
        "explained_variance": explained_variance(experience.values, experience.returns, acted),
        "score_length_correlation": correlation(scores, acted.sum(-1)),
    }
    return {
        **_divergence(experience.logp, experience.ref, acted),
        "entropy": float(experience.entropy[acted.bool()].mean()),
        **_scores(scores, held_out_scores),
        **_texts(experience.episodes),
        **{name: value for name, value in undefined_at_times.items() if not math.isnan(value)},
    }


def _divergence(logp: Tensor, ref: Tensor, acted: Tensor) -> dict[str, float]:
    k1, k3 = (torch.where(acted.bool(), kl(logp, ref), 0.0).sum() for kl in (kl_k1, kl_k3))
    return {
        "kl_k1": float(k1) / len(acted),
        "kl_k3": float(k3) / len(acted),
        "kl_token": float(k1 / acted.sum()),
    }


def _scores(scores: Tensor, held_out: Tensor | None) -> dict[str, float]:
    figures = {
        "score_mean": float(scores.mean()),
        "score_std": float(scores.std(correction=0)),
        "score_max": float(scores.max()),
    }
    if held_out is None:
        return figures
    mean = float(held_out.mean())
    return {**figures, "held_out_score_mean": mean, "score_over_held_out": figures["score_mean"] - mean}


def _texts(episodes: Sequence[Episode]) -> dict[str, float]:
    answers = [episode.sample.ids for episode in episodes]
    return {
        "length_mean": fmean(map(len, answers)),
        "unfinished": fmean(not episode.sample.ended for episode in episodes),
        "distinct_1": distinct(answers, 1),
        "distinct_2": distinct(answers, 2),
        "repetition_4": fmean(repetition(answer, 4) for answer in answers),
        "list_share": fmean(has_list(episode.reply) for episode in episodes),
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Return Pearson's correlation of two series [B]; NaN where one of them does not vary."""
    a, b = (series.double() - series.double().mean() for series in (a, b))
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else math.nan


@dataclass(frozen=True)
class Alarm:
    """Something in the figures that a person should look at."""

    name: str
    message: str
    stops: bool
    """Whether the run must not go on."""
    is_new: bool
    """Whether it was silent an iteration before."""


class Alarms:
    """Watches the figures of every iteration; its state is saved with the run, so that a resumed run is alike."""

    def __init__(self, *, kl_max: float) -> None:
        self._kl_max = kl_max
        self._entropies: list[float] = []
        self._lengths: list[float] = []
        self._scores: list[float] = []
        self._held_out: list[float] = []
        self._ringing: list[str] = []

    def check(self, figures: Mapping[str, float]) -> list[Alarm]:
        """Take in an iteration's figures and return every alarm that rings on them."""
        self._remember(figures)
        first = {"first_entropy": self._entropies[0], "first_length": fmean(self._lengths)}
        before, self._ringing = self._ringing, list(self._problems(figures, *first.values()))
        return [
            Alarm(
                name,
                MESSAGES[name].format(**figures, **first, kl_max=self._kl_max, iterations=2 * WINDOW),
                stops=name == "kl",
                is_new=name not in before,
            )
            for name in self._ringing
        ]

    def _remember(self, figures: Mapping[str, float]) -> None:
        self._entropies = [*self._entropies, figures["entropy"]][:1]
        self._lengths = [*self._lengths, figures["length_mean"]][:FIRST_ITERATIONS]
        if "held_out_score_mean" in figures:
            self._scores = [*self._scores, figures["score_mean"]][-2 * WINDOW :]
            self._held_out = [*self._held_out, figures["held_out_score_mean"]][-2 * WINDOW :]

    def _problems(self, figures: Mapping[str, float], entropy: float, length: float) -> Iterator[str]:
        if not figures["kl_k1"] <= self._kl_max:  # true of NaN as well
            yield "kl"
        if figures["unfinished"] > 0.5:
            yield "unfinished"
        if figures["entropy"] < entropy / 2:
            yield "entropy"
        if not length / 2 <= figures["length_mean"] <= length * 2:
            yield "length"
        if _moved(self._scores) > 2 and _moved(self._held_out) < -2:
            yield "proxy"

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far."""
        return {
            "entropies": self._entropies,
            "lengths": self._lengths,
            "scores": self._scores,
            "held_out": self._held_out,
            "ringing": self._ringing,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self._entropies = list(state["entropies"])
        self._lengths = list(state["lengths"])
        self._scores = list(state["scores"])
        self._held_out = list(state["held_out"])
        self._ringing = list(state["ringing"])


def _moved(series: Sequence[float]) -> float:
    """Return by how many standard errors the later half's mean lies over the earlier half's; 0 before both are full."""
    if len(series) < 2 * WINDOW:
        return 0.0
    earlier, later = series[:WINDOW], series[WINDOW:]
    difference = fmean(later) - fmean(earlier)
    error = math.sqrt((variance(earlier) + variance(later)) / WINDOW)
    return difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0
