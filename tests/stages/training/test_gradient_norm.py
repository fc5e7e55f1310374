"""The exact sum of squares does not depend on how elements are partitioned."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.parallel.collectives import Collectives
from stages.training import layout
from stages.training.gradient_norm import exact_sum_of_squares


@given(rows=st.integers(1, 60), seed=st.integers(0, 1000), magnitude=st.integers(-15, 15))
def test_the_sum_of_squares_does_not_depend_on_the_partition(rows: int, seed: int, magnitude: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, layout.ALIGNMENT, generator=generator) * 10.0**magnitude
    values *= torch.rand(rows, 1, generator=generator) ** 8
    whole = exact_sum_of_squares([values.view(-1)], rows, Collectives())
    parts = exact_sum_of_squares([row.clone() for row in values], rows, Collectives())
    with_padding = exact_sum_of_squares([values.view(-1), torch.zeros(640)], rows, Collectives())
    assert whole == parts == with_padding
    assert whole == pytest.approx(float(values.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("positions", [[77], [3, 77]])
def test_a_sum_of_squares_that_is_not_finite_is_infinite(bad: float, positions: list[int]) -> None:
    values = torch.ones(128)
    values[positions] = bad
    assert exact_sum_of_squares([values], 2, Collectives()) == math.inf
