"""The schedule and the split of weights between the two optimizers."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

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
