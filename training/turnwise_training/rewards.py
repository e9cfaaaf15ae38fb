"""What PPO is rewarded by: terms that score episodes, and their weighted sum."""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from turnwise_training.chat import Encoder
from turnwise_training.config import RewardTerm
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RewardError


class Reward(Protocol):
    """Scores answers."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one finite score an episode; higher is better."""


class ModelReward:
    """The score of a reward model that shares the policy's tokens."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from turnwise_training.models import load_reward_model

        self._model = load_reward_model(folder).to(device)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the score at each answer's last token."""
        from turnwise_training.scoring import score_ids

        return score_ids(self._model, [episode.prompt_ids + episode.sample.ids for episode in episodes])


class CallableReward:
    """The scores of a function of one's own, named `module:function`; it takes episodes and returns floats."""

    def __init__(self, source: str) -> None:
        module, colon, name = source.partition(":")
        if not colon:
            raise ConfigurationError(f"reward {source!r} is no `module:function`")
        try:
            self._function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"reward {source!r} cannot be imported: {error}") from error

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return what the function returns."""
        return [float(score) for score in self._function(episodes)]


class WeightedReward:
    """The weighted sum of several terms."""

    def __init__(self, terms: Sequence[tuple[str, float, Reward]]) -> None:
        """Take (name, weight, reward) of each term."""
        self._terms = terms

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return each episode's sum; raises RewardError for a count that differs or a score that is not finite."""
        total = [0.0] * len(episodes)
        for name, weight, reward in self._terms:
            scores = reward.score(episodes)
            if len(scores) != len(episodes):
                raise RewardError(f"reward {name!r} gave {len(scores)} scores to {len(episodes)} episodes")
            if not all(map(math.isfinite, scores)):
                raise RewardError(f"reward {name!r} gave a score that is not a finite number")
            total = [before + weight * score for before, score in zip(total, scores, strict=True)]
        return total


def build_reward(terms: Sequence[RewardTerm], encoder: Encoder, device: torch.device) -> Reward:
    """Return the sum of a recipe's terms; raises ConfigurationError for one that cannot be used."""
    return WeightedReward([(term.source, term.weight, _build(term, device)) for term in terms])


def _build(term: RewardTerm, device: torch.device) -> Reward:
    return CallableReward(term.source) if term.kind == "callable" else ModelReward(Path(term.source), device)
