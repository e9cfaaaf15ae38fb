"""What PPO is rewarded by: terms that score episodes, and their weighted sum."""

import math
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import RewardTerm
from turnwise_training.data.rows import answered
from turnwise_training.episodes import Episode
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.http_reward import HttpReward
from turnwise_training.models import load_reward_model
from turnwise_training.principles import PrinciplesReward
from turnwise_training.ranked import encode_answers
from turnwise_training.scoring import score_ids


class Reward(Protocol):
    """Scores answers."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one finite score an episode; higher is better."""


class ModelReward:
    """The score of a reward model; tokens are taken as they are where it renders messages as the policy does."""

    def __init__(self, folder: Path, encoder: Encoder, device: torch.device) -> None:
        self._folder = folder
        self._model = load_reward_model(folder).to(device)
        own = Encoder(load_tokenizer(folder))
        self._encoder = None if _renders_alike(own, encoder) else own
        self._model.config.pad_token_id = own.pad_id

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the score at each answer's last token; raises RewardError for one over the model's context."""
        ids = [self._ids(episode) for episode in episodes]
        longest, context = max(map(len, ids), default=0), self._model.config.max_position_embeddings
        if longest > context:
            raise RewardError(
                f"an episode of {longest} tokens is over the context of {context} of the reward model {self._folder}; "
                "lower max_prompt_tokens or max_new_tokens"
            )
        return score_ids(self._model, ids)

    def _ids(self, episode: Episode) -> list[int]:
        if self._encoder is None:
            return episode.prompt_ids + episode.sample.ids
        (ids,) = encode_answers([answered(episode.prompt.prompt, episode.reply)], self._encoder)
        return ids if episode.sample.ended else ids[:-1]  # a cut answer has no end token to be judged at


def _renders_alike(one: Encoder, other: Encoder) -> bool:
    a, b = one.tokenizer, other.tokenizer
    same_tokens = a.backend_tokenizer.to_str() == b.backend_tokenizer.to_str()
    return bool(same_tokens and a.chat_template == b.chat_template)


class CallableReward:
    """The scores of a function of one's own, named `module:function`; it takes episodes and returns floats."""

    def __init__(self, source: str) -> None:
        if ":" not in source:
            raise ConfigurationError(f"reward {source!r} is no `module:function`")
        if "" not in sys.path:
            sys.path.insert(0, "")  # a module beside the recipe's user, as `python -m` finds it
        try:
            self._function = cast(
                "Callable[[Sequence[Episode]], Sequence[float]]", pkgutil.resolve_name(source)
            )
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"reward {source!r} cannot be imported: {error}") from error
        self._source = source

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return what the function returns; raises RewardError where that is no list of numbers."""
        scores = self._function(episodes)
        try:
            return [float(score) for score in scores]
        except (TypeError, ValueError) as error:
            raise RewardError(f"reward {self._source!r} returned no list of numbers: {error}") from error


class WeightedReward:
    """The weighted sum of several terms."""

    def __init__(self, terms: Sequence[tuple[str, float, Reward]]) -> None:
        """Take the name, the weight and the reward of each term; raises ConfigurationError for a name given twice."""
        self._terms = terms
        names = [name for name, _, _ in terms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"reward {twice[0]!r} is named twice; give it one weight")

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return each episode's sum; raises as `score_terms` does."""
        columns = self.score_terms(episodes)
        weighted = [[weight * score for score in columns[name]] for name, weight, _ in self._terms]
        return [math.fsum(column[row] for column in weighted) for row in range(len(episodes))]

    def score_terms(self, episodes: Sequence[Episode]) -> dict[str, list[float]]:
        """Return each term's own scores by its name.

        Raises RewardError naming a term that gives another number of scores or one that is no finite number.
        """
        columns = {}
        for name, _, reward in self._terms:
            scores = reward.score(episodes)
            if len(scores) != len(episodes):
                raise RewardError(f"reward {name!r} gave {len(scores)} scores to {len(episodes)} episodes")
            if strange := [score for score in scores if not math.isfinite(score)]:
                raise RewardError(f"reward {name!r} gave {strange[0]}, which is no finite number")
            columns[name] = scores
        return columns


def build_reward(terms: Sequence[RewardTerm], encoder: Encoder, device: torch.device) -> WeightedReward:
    """Return the sum of a recipe's terms; raises ConfigurationError for one that cannot be used.

    `encoder` is the policy's.
    """
    return WeightedReward([(term.source, term.weight, _build(term, encoder, device)) for term in terms])


def _build(term: RewardTerm, encoder: Encoder, device: torch.device) -> Reward:
    if term.kind == "model":
        return ModelReward(Path(term.source), encoder, device)
    if term.kind == "callable":
        return CallableReward(term.source)
    if term.kind == "http":
        return HttpReward(term.source)
    return PrinciplesReward(Path(term.source), term.judge)
