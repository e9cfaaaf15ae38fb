"""Matrices in bfloat16: close to what they were, and only where it pays."""

import torch
from torch import nn

from turnwise_server.moderation.rounded_matrices import RoundedLinear, round_matrices


def test_a_rounded_map_gives_nearly_the_same_in_32_bit_floats() -> None:
    torch.manual_seed(0)
    exact = nn.Linear(384, 384)
    inputs = torch.randn(2, 5, 384)
    found = RoundedLinear(exact)(inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact(inputs), atol=0.02, rtol=0.02)


def test_a_map_without_a_bias_stays_without() -> None:
    assert RoundedLinear(nn.Linear(4, 4, bias=False)).bias is None


def test_large_maps_are_rounded_wherever_they_are_and_small_ones_stay() -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(384, 384)), nn.Linear(384, 13))
    round_matrices(module)
    kinds = {name: type(part) for name, part in module.named_modules()}
    assert (kinds["0.0"], kinds["1"]) == (RoundedLinear, nn.Linear)
