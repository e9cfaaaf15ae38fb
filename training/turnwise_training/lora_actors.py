"""The three models of PPO as adapters of one base: the policy's, none for the reference, and the value function's."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnwise_training.adapters import (
    ADAPTER,
    POLICY,
    VALUE,
    add_adapter,
    kept_settings,
    load_adapter,
    turned_to,
)
from turnwise_training.card import RECORD
from turnwise_training.config import Lora, PPOConfig
from turnwise_training.episodes import Answers
from turnwise_training.errors import ConfigurationError
from turnwise_training.models import (
    answer_logits,
    load_model,
    load_reward_model,
    prefix_scores,
    without_dropout,
)
from turnwise_training.parallel import Parallel
from turnwise_training.run import weights_digest


@dataclass(frozen=True)
class LoraActors:
    """One network, two adapters and the value function's head."""

    language_model: PreTrainedModel
    policy: nn.Module
    """The weights of the policy's adapter."""
    value: nn.ModuleDict
    """The weights of the value function's adapter, and its head."""
    scale: float
    bias: float

    def policy_logits(self, answers: Answers) -> Tensor:
        """Return logits [B, T, V] that predicted each token of the answers."""
        return answer_logits(self.language_model, answers.tokens, answers.attend, answer_width=answers.width)

    @torch.no_grad()
    def reference_logits(self, answers: Answers) -> Tensor:
        """Return the same of the policy before PPO, without gradients."""
        with turned_to(self.language_model, None):
            return self.policy_logits(answers)

    def values(self, answers: Answers) -> Tensor:
        """Return the value [B, T] of the state before each token of the answers."""
        with turned_to(self.language_model, VALUE):
            scores = prefix_scores(
                self.language_model.base_model, self.value["head"], answers.tokens, answers.attend
            )
        return (scores * self.scale + self.bias)[:, -answers.width - 1 : -1]


def build_lora_actors(config: PPOConfig, lora: Lora, parallel: Parallel) -> LoraActors:
    """Return the actors of a recipe on this process's device, without dropout.

    The value function starts from the adapter and the head of `value_model`, or from a head of zeros on the base.
    Raises ConfigurationError where `value_model` was not trained with `lora` on the recipe's `model`, or under FSDP2.
    """
    if parallel.is_sharded:
        raise ConfigurationError(
            "PPO with lora does not run under FSDP2: launch without --use_fsdp, or drop lora"
        )
    model = load_model(config.model, lora)
    head = nn.Linear(model.config.hidden_size, 1, bias=False)
    nn.init.zeros_(head.weight)
    scale, bias = 1.0, 0.0
    if config.value_model is not None:
        _require_base(config.value_model, config.model)
        scorer = load_reward_model(config.value_model)
        head.load_state_dict(scorer.score.state_dict())
        scale, bias = scorer.config.reward_scale, scorer.config.reward_bias
    kept = config.value_model and config.value_model / ADAPTER
    value = add_adapter(model, kept_settings(kept) if kept else lora, VALUE, seed=config.seed)
    if kept:
        load_adapter(model, VALUE, kept)
    policy = add_adapter(model, lora, POLICY, seed=config.seed)
    without_dropout(model)
    parallel.place(model)
    parallel.place(head)
    return LoraActors(model, policy, nn.ModuleDict({"adapter": value, "head": head}), scale, bias)


def _require_base(value_model: Path, model: Path) -> None:
    """Raise ConfigurationError unless a reward model keeps an adapter that was trained on `model`'s very weights."""
    record = value_model / RECORD
    parent = (json.loads(record.read_text()) if record.is_file() else {}).get("parent") or {}
    if not (value_model / ADAPTER).is_dir() or parent.get("weights_sha256") != weights_digest(model):
        raise ConfigurationError(
            f"value_model {value_model} is no adapter on {model}: train the reward model on it with `lora`, or leave "
            "value_model out"
        )
