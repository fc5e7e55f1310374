"""Sums in the fixed tree do not depend on how ranks divide the micro-batches."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.training.summation_tree import PartialSums, contiguous_run, maximal_spans


def tree_sum(values: list[torch.Tensor], ranks: int) -> torch.Tensor:
    """Each rank adds its run; one owner completes the sum."""
    owner = PartialSums()
    for rank in range(ranks):
        sums = PartialSums()
        run = contiguous_run(rank, ranks, len(values))
        for number in run:
            sums.add(number, 1, values[number].clone())
        held = sums.take()
        assert [(partial_sum.start, partial_sum.length) for partial_sum in held] == maximal_spans(run)
        for partial_sum in held:
            owner.add(partial_sum.start, partial_sum.length, partial_sum.value)
    return owner.total()


@given(count=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_sum_does_not_depend_on_the_number_of_ranks(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = list(torch.randn(count, 3, generator=generator) * torch.rand(count, 1, generator=generator).mul(20).exp())
    whole = tree_sum(values, 1)
    for ranks in (2, 3, 4, 5, 7, 50):
        assert torch.equal(tree_sum(values, ranks), whole)
    assert torch.allclose(
        whole.double(), torch.stack(values).double().sum(0), rtol=1e-4, atol=1e-2 * values[0].abs().max()
    )


def test_a_sum_from_left_to_right_differs() -> None:
    """The test above can fail: a sum from left to right depends on where the run is cut."""
    values = [torch.tensor([value]) for value in (1e8, 1.0, -1e8, 1.0)]
    left_to_right = (values[0] + values[1]) + values[2] + values[3]
    assert not torch.equal(tree_sum(values, 1), left_to_right)
