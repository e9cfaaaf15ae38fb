"""Matrices of 8-bit integers: how far rounding may move a weight, and that every way of multiplying agrees."""

from __future__ import annotations

import pytest
import torch

from turnwise_server.engine.int8 import Int8Matrix, can_round, embed, linear, round_to_int8, stack

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}
"""The largest relative error of rounding once to the format; twice that of float16's own, for its small numbers."""


def random_matrix(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)


def widened(matrix: Int8Matrix) -> torch.Tensor:
    return matrix.values.double() * matrix.scales.double()[:, None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_weight_moves_by_more_than_half_a_step_of_its_row(dtype: torch.dtype) -> None:
    weight = random_matrix(77, 96, dtype) * torch.logspace(-2, 2, 77)[:, None].to(dtype)
    before = weight.clone()
    matrix = round_to_int8(weight)
    assert torch.equal(weight, before)
    assert matrix.values.dtype is torch.int8
    assert matrix.scales.dtype is dtype
    moved = (widened(matrix) - weight.double()).abs()
    assert (moved <= matrix.scales.double()[:, None] * 0.5001).all()
    assert torch.allclose(
        matrix.scales.double() * 127, weight.abs().amax(dim=1).double(), rtol=2 * UNIT[dtype]
    )


def test_rows_of_zeros_stay_zeros() -> None:
    weight = random_matrix(5, 32)
    weight[2] = 0
    matrix = round_to_int8(weight)
    assert not widened(matrix)[2].any()
    assert not linear(torch.ones(1, 32), matrix)[0, 2]


def test_the_least_number_of_a_format_does_not_divide_by_zero() -> None:
    weight = torch.full((2, 16), 6e-8, dtype=torch.float16)
    assert torch.isfinite(widened(round_to_int8(weight))).all()


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(fault: float) -> None:
    weight = random_matrix(5, 32)
    weight[3, 7] = fault
    with pytest.raises(ValueError, match="not finite"):
        round_to_int8(weight)


def test_widths_that_the_kernel_cannot_read_are_refused() -> None:
    assert not can_round(torch.zeros(64, 100))
    with pytest.raises(ValueError, match="100 columns"):
        round_to_int8(torch.zeros(64, 100))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17, 40])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 16), (77, 96), (300, 48)])
def test_products_equal_those_with_the_rounded_weights(
    rows: int, outputs: int, inputs: int, dtype: torch.dtype
) -> None:
    matrix, bias = round_to_int8(random_matrix(outputs, inputs, dtype)), random_matrix(1, outputs, dtype)[0]
    x = random_matrix(rows, inputs, dtype)
    exact = x.double() @ widened(matrix).t() + bias.double()
    # Three roundings of the result, and of sums in float32.
    size = x.double().abs() @ widened(matrix).t().abs() + bias.double().abs()
    bound = 4 * UNIT[dtype] * size + inputs * 2.0**-24 * size
    assert ((linear(x, matrix, bias).double() - exact).abs() <= bound).all()


def test_weights_are_widened_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = random_matrix(330, 64), random_matrix(50, 64)
    whole = round_to_int8(weight)
    expected = linear(x, whole)
    monkeypatch.setattr("turnwise_server.engine.int8._BLOCK", 100 * 64)
    assert torch.equal(round_to_int8(weight).values, whole.values)
    torch.testing.assert_close(linear(x, whole), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_is_bit_for_bit_the_same_alone_and_among_up_to_sixteen(dtype: torch.dtype) -> None:
    matrix, x = round_to_int8(random_matrix(200, 128, dtype)), random_matrix(16, 128, dtype)
    together = linear(x, matrix)
    for first, last in ((0, 1), (3, 5), (2, 9), (8, 16)):
        assert torch.equal(linear(x[first:last], matrix), together[first:last])


def test_leading_dimensions_are_kept_and_no_rows_are_no_rows() -> None:
    matrix = round_to_int8(random_matrix(30, 32))
    assert linear(torch.ones(2, 3, 32), matrix).shape == (2, 3, 30)
    assert linear(torch.ones(0, 32), matrix).shape == (0, 30)


def test_rows_that_lie_apart_in_memory_are_multiplied_as_they_are() -> None:
    matrix = round_to_int8(random_matrix(30, 32))
    x = random_matrix(4, 64)
    assert torch.equal(linear(x[:, ::2], matrix), linear(x[:, ::2].clone(), matrix))


def test_stacked_matrices_give_all_products_side_by_side() -> None:
    matrices = [round_to_int8(random_matrix(rows, 32)) for rows in (5, 20)]
    x = random_matrix(3, 32)
    apart = torch.cat([linear(x, matrix) for matrix in matrices], dim=1)
    assert torch.equal(linear(x, stack(matrices)), apart)


def test_an_embedding_is_a_row() -> None:
    matrix = round_to_int8(random_matrix(30, 32))
    ids = torch.tensor([[3, 29], [0, 3]])
    torch.testing.assert_close(embed(ids, matrix).double(), widened(matrix)[ids])
