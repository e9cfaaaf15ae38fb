"""A PPO learner on tiny models, built in memory: no recipe, no files, answers of mixed lengths."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from support.tiny_models import Family, tiny_model
from turnwise_training.actors import SeparateActors
from turnwise_training.chat import Encoder
from turnwise_training.config import Optimization, PPOConfig, Precision, RewardTerm
from turnwise_training.data import Prompt
from turnwise_training.episodes import Episode
from turnwise_training.models import without_dropout
from turnwise_training.parallel import Parallel
from turnwise_training.ppo import PPO
from turnwise_training.prompts import EncodedPrompt
from turnwise_training.ptx import PretrainingMix
from turnwise_training.rollout import TransformersEngine

FAMILIES: tuple[Family, ...] = ("gpt2", "llama")
END_IDS = frozenset(range(60))
"""A fifth of the vocabulary ends an answer, so that some end and some run into the limit."""
OPTIMIZATION = Optimization(learning_rate=1e-3, muon_learning_rate=0.0, weight_decay=0.0, eps=1e-5)
CONFIG = PPOConfig(
    name="tiny",
    model=Path("none"),
    output=Path("none"),
    prompts={},
    rewards=(RewardTerm("callable", "none"),),
    iterations=4,
    batch=8,
    minibatch=4,
    micro=4,
    max_new_tokens=8,
    policy=OPTIMIZATION,
    value=OPTIMIZATION,
    precision="float32",
)


class FunctionReward:
    """Scores each answer by a function of its tokens."""

    def __init__(self, score: Callable[[list[int]], float]) -> None:
        self._score = score

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score an episode."""
        return [self._score(episode.sample.ids) for episode in episodes]


def token_mean(ids: list[int]) -> float:
    """Return a score that differs between answers."""
    return sum(ids) / len(ids) / 100


def tiny_value_model(policy: PreTrainedModel, *, head: float = 0.1, bias: float = 0.0) -> PreTrainedModel:
    """Return a value model on copies of the policy's weights; its head is drawn with deviation `head`."""
    config = copy.deepcopy(policy.config)
    config.num_labels, config.pad_token_id = 1, 0
    config.reward_scale, config.reward_bias = 1.0, bias
    torch.manual_seed(1)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(policy.base_model.state_dict())
    torch.nn.init.normal_(model.score.weight, std=head)
    return model


def tiny_actors(family: Family, *, dtype: torch.dtype = torch.float32, **value: float) -> SeparateActors:
    """Return policy, equal reference and value function, without dropout."""
    policy = tiny_model(family)
    actors = SeparateActors(policy, copy.deepcopy(policy), tiny_value_model(policy, **value))
    for model in (actors.policy, actors.reference, actors.value):
        without_dropout(model)
        model.to(dtype)
    return actors


def tiny_prompts(count: int = 12) -> list[EncodedPrompt]:
    """Return prompts of 3 to 14 random tokens; end tokens stand among them."""
    generator = torch.Generator().manual_seed(5)
    return [
        EncodedPrompt(
            Prompt(({"role": "user", "content": str(number)},), {}),
            torch.randint(300, (3 + number,), generator=generator).tolist(),
        )
        for number in range(count)
    ]


def tiny_engine(
    policy: PreTrainedModel, *, batch: int = 64, precision: Precision = "float32"
) -> TransformersEngine:
    """Return an engine that runs the policy in this process."""
    return TransformersEngine(policy, Parallel(), end_ids=END_IDS, pad_id=0, batch=batch, precision=precision)


def tiny_learner(
    encoder: Encoder,
    *,
    family: Family = "llama",
    actors: SeparateActors | None = None,
    score: Callable[[list[int]], float] = token_mean,
    ptx: PretrainingMix | None = None,
    **settings: Any,
) -> PPO:
    """Return a learner with other `settings` than CONFIG's."""
    config = replace(CONFIG, **settings)
    actors = actors or tiny_actors(family)
    engine = tiny_engine(actors.policy, precision=config.precision)
    return PPO(config, actors, engine, FunctionReward(score), encoder, Parallel(), tiny_prompts(), ptx)
