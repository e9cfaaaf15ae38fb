"""Multiplies a network's matrices in bfloat16 where the processor can: twice as quick. All else stays in 32-bit floats.

It imports torch; import it where a network is loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_ELEMENTS = 2**16
"""Below, nothing is gained; the last layer, whose rounding would show most, is among these."""


class RoundedLinear(nn.Module):
    """An affine map in bfloat16, from and to 32-bit floats."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """Take over a map, rounded."""
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of shape (..., in) to (..., out)."""
        return nn.functional.linear(inputs.bfloat16(), self.weight, self.bias).float()


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16; without, it would be slower than 32 bits."""
    return any(value is True for name, value in torch.cpu.get_capabilities().items() if "bf16" in name)


def round_matrices(module: nn.Module) -> None:
    """Replace the large affine maps inside a network."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.weight.numel() >= _LEAST_ELEMENTS:
            setattr(module, name, RoundedLinear(child))
        else:
            round_matrices(child)
