"""Matrices kept as 8-bit integers with one scale for each output: half the memory of bfloat16, a quarter of float32.

Only the weights are rounded; what flows through the model keeps its number format. docs/decisions/0007 has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

_LEVELS = 127
"""Symmetric: -128 stays unused, so that a weight and its negative round alike."""

_COLUMN_STEP = 16
"""torch's kernel for few rows reads whole vectors; in bfloat16 it crashes on other widths (torch 2.13)."""

_FEW_ROWS = 16
"""Up to here reading half the bytes beats bfloat16's faster products; beyond, weights are widened a block at a time."""

_BLOCK = 1 << 21
"""Weights widened at once: few enough to stay in the processor's cache, enough that no call is small."""


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A weight matrix `[out, in]` of which `values[o, i] * scales[o]` is the entry."""

    values: torch.Tensor
    """int8, `[out, in]`."""
    scales: torch.Tensor
    """`[out]`, in the number format the model computes with."""


Matrix = torch.Tensor | Int8Matrix


def can_round(weight: torch.Tensor) -> bool:
    """Say whether `round_to_int8` takes a matrix `[out, in]` of this shape."""
    return weight.shape[1] % _COLUMN_STEP == 0


def round_to_int8(weight: torch.Tensor) -> Int8Matrix:
    """Round a matrix `[out, in]`. No entry moves by more than half its row's scale, the row's largest entry over 127.

    In float16 that does not hold for rows of which the scale is below the format's normal numbers.

    Raises:
        ValueError: an entry is not finite, or the matrix has a width that `can_round` refuses.
    """
    if not can_round(weight):
        raise ValueError(f"{weight.shape[1]} columns are no multiple of {_COLUMN_STEP}")
    largest = weight.abs().amax(dim=1).float()
    if not torch.isfinite(largest).all():
        raise ValueError("some are not finite numbers")
    # The scale is rounded first and the weights with what is left of it, so its rounding costs no exactness.
    scales = (largest / _LEVELS).to(weight.dtype)
    scales[scales == 0] = 1  # a row of zeros
    values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    rows = max(1, _BLOCK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        exact = weight[part].float() / scales[part, None].float()
        values[part] = exact.round_().clamp_(-_LEVELS, _LEVELS).to(torch.int8)
    return Int8Matrix(values, scales)


def stack(matrices: Sequence[Matrix]) -> Matrix:
    """Return matrices of one width on top of each other: the product with it is all their products side by side."""
    if isinstance(matrices[0], torch.Tensor):
        return torch.cat([m for m in matrices if isinstance(m, torch.Tensor)])
    rounded = [m for m in matrices if isinstance(m, Int8Matrix)]
    return Int8Matrix(torch.cat([m.values for m in rounded]), torch.cat([m.scales for m in rounded]))


def linear(inputs: torch.Tensor, weight: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return the product of `[..., in]` with a matrix `[out, in]`, plus the bias: `[..., out]`."""
    if isinstance(weight, torch.Tensor):
        return F.linear(inputs, weight, bias)
    rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
    if len(rows) <= _FEW_ROWS:
        product = torch._weight_int8pack_mm(rows, weight.values, weight.scales)  # noqa: SLF001
    else:
        product = _widened_product(rows, weight)
    if bias is not None:
        product += bias
    return product.view(*inputs.shape[:-1], len(weight.scales))


def embed(token_ids: torch.Tensor, weight: Matrix) -> torch.Tensor:
    """Return the matrix's rows of these ids, `[..., in]`."""
    if isinstance(weight, torch.Tensor):
        return F.embedding(token_ids, weight)
    return weight.values[token_ids] * weight.scales[token_ids, None]


def _widened_product(rows: torch.Tensor, weight: Int8Matrix) -> torch.Tensor:
    outputs, width = weight.values.shape
    step = min(outputs, max(1, _BLOCK // width))
    block = torch.empty(step, width, dtype=rows.dtype)
    product = torch.empty(len(rows), outputs, dtype=rows.dtype)
    for start in range(0, outputs, step):
        part = slice(start, min(start + step, outputs))
        wide = block[: part.stop - start].copy_(weight.values[part])
        torch.mul(F.linear(rows, wide), weight.scales[part], out=product[:, part])
    return product
