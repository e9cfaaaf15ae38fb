"""The schedule and the split of weights between the two optimizers."""

import math

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from turnwise_training.averages import WeightAverage
from turnwise_training.config import ModelShape, Optimization
from turnwise_training.models import new_model
from turnwise_training.optimizers import Optimizers, rate_share

SETTINGS = Optimization(warmup_share=0.1, decay_share=0.3, final_share=0.1)
SHAPE = ModelShape(hidden_size=32, layers=1, heads=2, kv_heads=1, intermediate_size=48, context_length=64)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0), (70, 1.0), (85, 0.55), (99, 0.13), (100, 0.1)],
)
def test_the_rate_warms_up_stays_and_decays(step: int, share: float) -> None:
    assert rate_share(step, 100, SETTINGS) == pytest.approx(share)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (499, 1.0)])
def test_11_ten_steps_of_warmup_start_at_a_tenth_and_the_rate_then_stays(step: int, share: float) -> None:
    settings = Optimization(schedule="constant", warmup_steps=10)
    assert rate_share(step, 500, settings) == pytest.approx(share)


@pytest.mark.parametrize("step", range(0, 101, 5))
def test_11_a_cosine_falls_to_its_final_share(step: int) -> None:
    settings = Optimization(schedule="cosine", warmup_share=0.0, final_share=0.1)
    expected = 1.0 if step == 0 else 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 1) / 99)) / 2
    assert rate_share(step, 100, settings) == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.992])
def test_11_the_average_of_weights_is_its_closed_form(decay: float) -> None:
    weights = nn.Linear(1, 1, bias=False)
    path = [1.0, 3.0, -2.0, 5.0]
    nn.init.constant_(weights.weight, path[0])
    average = WeightAverage(weights, decay=decay)
    for value in path[1:]:
        nn.init.constant_(weights.weight, value)
        average.follow(weights)
    average.copy_to(weights)
    closed = decay**3 * path[0] + (1 - decay) * (decay**2 * path[1] + decay * path[2] + path[3])
    assert weights.weight.item() == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("muon_learning_rate", [0.0, 0.02])
def test_one_step_moves_every_weight_and_clears_the_gradients(
    tokenizer: PreTrainedTokenizerFast, muon_learning_rate: float
) -> None:
    model = new_model(SHAPE, tokenizer, seed=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = Optimizers(model, Optimization(muon_learning_rate=muon_learning_rate))
    ids = torch.arange(4, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizers.step(1.0)
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, before[name]), name
        assert weight.grad is None


def test_a_step_at_rate_zero_moves_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_model(SHAPE, tokenizer, seed=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = Optimizers(model, Optimization())
    ids = torch.arange(4, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizers.step(0.0)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]), name
