"""The self-check stops a run whose figures would be wrong, and names the setting that differs."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from support.tiny_models import tiny_model
from support.tiny_ppo import tiny_actors, tiny_engine, tiny_learner, tiny_value_model
from turnwise_training import rollout
from turnwise_training.actors import SeparateActors
from turnwise_training.chat import Encoder
from turnwise_training.episodes import Sample
from turnwise_training.errors import RunError
from turnwise_training.rollout import TransformersEngine, pick
from turnwise_training.self_check import check_first_kl, check_first_ratio


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


class OtherTemperature:
    """An engine that samples at a temperature of its own."""

    def __init__(self, engine: TransformersEngine, temperature: float) -> None:
        self._engine = engine
        self._temperature = temperature

    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        return self._engine.sample(
            prompts, keys, max_new_tokens=max_new_tokens, temperature=self._temperature
        )

    def refresh(self, policy: PreTrainedModel) -> None:
        self._engine.refresh(policy)


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.5])
def test_an_engine_at_another_temperature_is_refused_by_its_temperature(
    temperature: float, encoder: Encoder
) -> None:
    learner = tiny_learner(encoder)
    learner.engine = OtherTemperature(tiny_engine(learner.actors.language_model), temperature)
    with pytest.raises(RunError, match=f"samples at a temperature of about {temperature:g}, the recipe at 1"):
        learner.iterate(0)


def test_an_engine_that_draws_from_few_tokens_is_refused_by_its_top_k(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pick_of_five(logits: Tensor, numbers: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        least = logits.topk(5).values[:, -1:]
        return pick(logits.masked_fill(logits < least, -torch.inf), numbers, temperature=temperature)

    monkeypatch.setattr(rollout, "pick", pick_of_five)
    with pytest.raises(RunError, match="turn its top_k and top_p off"):
        tiny_learner(encoder).iterate(0)


def test_an_engine_of_other_weights_is_refused_at_any_iteration(encoder: Encoder) -> None:
    learner = tiny_learner(encoder)
    learner.iterate(0)
    learner.engine = tiny_engine(tiny_model("llama", seed=5))
    with pytest.raises(RunError, match="its weights, prompt tokens or position ids are others"):
        learner.iterate(1)


def test_a_reference_that_differs_is_refused(encoder: Encoder) -> None:
    actors = tiny_actors("llama")
    with torch.no_grad():
        actors.reference.lm_head.weight[3] += 0.1
    with pytest.raises(RunError, match=r"policy and the reference differ by up to .* same `model`"):
        tiny_learner(encoder, actors=actors).iterate(0)


def test_dropout_left_on_is_refused(encoder: Encoder) -> None:
    policy = tiny_model("gpt2")
    reference = copy.deepcopy(policy).requires_grad_(requires_grad=False)
    learner = tiny_learner(
        encoder, actors=SeparateActors(policy, reference, tiny_value_model(policy)), precision="bfloat16"
    )
    policy.train()  # the engine samples with a copy, which is in evaluation mode
    with pytest.raises(RunError, match="dropout"):
        learner.iterate(0)


def test_a_refused_run_has_taken_no_step(encoder: Encoder) -> None:
    learner = tiny_learner(encoder)
    before = copy.deepcopy(learner.actors.language_model.state_dict())
    learner.engine = OtherTemperature(tiny_engine(learner.actors.language_model), 0.5)
    with pytest.raises(RunError):
        learner.iterate(0)
    for name, tensor in learner.actors.language_model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_only_acted_tokens_are_compared() -> None:
    acted = torch.tensor([[True, False]])
    check_first_kl(torch.tensor([[1.0, 5.0]]), torch.tensor([[1.0, 7.0]]), acted)
    with pytest.raises(RunError, match=r"differ by up to 0\.5 nats"):
        check_first_kl(torch.tensor([[1.0, 5.0]]), torch.tensor([[1.5, 5.0]]), acted)


@pytest.mark.parametrize("gap", [1e-3, math.nan])
def test_a_gap_in_the_kl_is_an_error_even_where_it_is_no_number(gap: float) -> None:
    with pytest.raises(RunError):
        check_first_kl(torch.tensor([[gap]]), torch.zeros(1, 1), torch.tensor([[True]]))


def test_the_first_ratio_may_be_off_by_rounding_only() -> None:
    check_first_ratio(1 + 5e-6)
    for ratio in (1.001, 0.9, math.nan):
        with pytest.raises(RunError, match="temperature, padding, precision or dropout"):
            check_first_ratio(ratio)
