"""The three models that PPO runs: the policy that learns, the reference it is held to, the value function."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnwise_training.config import PPOConfig
from turnwise_training.episodes import Answers
from turnwise_training.models import (
    answer_logits,
    load_model,
    load_reward_model,
    new_value_model,
    token_scores,
    without_dropout,
)
from turnwise_training.parallel import Parallel


class Actors(Protocol):
    """What PPO needs of its models, whether they are three networks or adapters of one."""

    @property
    def policy(self) -> nn.Module:
        """The parameters that the policy's optimizer trains."""

    @property
    def value(self) -> nn.Module:
        """The parameters that the value function's optimizer trains."""

    @property
    def language_model(self) -> PreTrainedModel:
        """The policy as a model to sample from and to export."""

    def policy_logits(self, answers: Answers) -> Tensor:
        """Return logits [B, T, V] that predicted each token of the answers."""

    def reference_logits(self, answers: Answers) -> Tensor:
        """Return the same of the policy before PPO, without gradients."""

    def values(self, answers: Answers) -> Tensor:
        """Return the value [B, T] of the state before each token of the answers."""


@dataclass(frozen=True)
class SeparateActors:
    """Three networks."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    value: PreTrainedModel

    @property
    def language_model(self) -> PreTrainedModel:
        """The policy as a model to sample from and to export."""
        return self.policy

    def policy_logits(self, answers: Answers) -> Tensor:
        """Return logits [B, T, V] that predicted each token of the answers."""
        return answer_logits(self.policy, answers.tokens, answers.attend, answer_width=answers.width)

    @torch.no_grad()
    def reference_logits(self, answers: Answers) -> Tensor:
        """Return the same of the policy before PPO, without gradients."""
        return answer_logits(self.reference, answers.tokens, answers.attend, answer_width=answers.width)

    def values(self, answers: Answers) -> Tensor:
        """Return the value [B, T] of the state before each token of the answers."""
        scores = token_scores(self.value, answers.tokens, answers.attend)
        return scores[:, -answers.width - 1 : -1]


def build_actors(config: PPOConfig, parallel: Parallel) -> Actors:
    """Return the models of a recipe on this process's device, without dropout."""
    if config.lora is not None:
        from turnwise_training.lora_actors import build_lora_actors

        return build_lora_actors(config, config.lora, parallel)
    policy, reference = load_model(config.model), load_model(config.model)
    value = load_reward_model(config.value_model) if config.value_model else new_value_model(config.model)
    # The reference runs without gradients but is not frozen: ATen's matmul folds a batch, and so orders its sums, by
    # whether the weight requires gradients, and then equal models differ by a millionth.
    for model in (policy, reference, value):
        without_dropout(model)
        parallel.place(model)
    return SeparateActors(policy, reference, value)
