"""The contrastive loss: values by hand, gradients against autograd of the plain formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.contrastive import contrastive, distilled, hardest


def plain(a: torch.Tensor, b: torch.Tensor, t: float, weights: torch.Tensor, more: list[torch.Tensor]) -> torch.Tensor:
    """The loss as its formula says, for autograd."""
    a, b = F.normalize(a), F.normalize(b)
    eye = torch.eye(len(a), dtype=torch.bool)
    found = a.new_zeros(())
    for own, other, negatives in ((a, b, more[:1]), (b, a, more[1:])):
        logits = torch.cat([
            own @ other.t() / t,
            (own @ own.t() / t).masked_fill(eye, -torch.inf),
            *(own @ F.normalize(one).t() / t for one in negatives),
        ], dim=1)  # fmt: skip
        found = found - (F.log_softmax(logits, 1)[torch.arange(len(a)), torch.arange(len(a))] * weights).mean() / 2
    return found


def test_by_hand() -> None:
    unit = torch.eye(2)
    assert float(contrastive(unit, unit, 1.0)) == pytest.approx(math.log(math.e + 2) - 1)
    assert float(contrastive(7 * unit, unit, 1.0)) == pytest.approx(math.log(math.e + 2) - 1), "vectors are normalised"
    crossed = unit.flip(0)
    assert float(contrastive(unit, crossed, 1.0)) == pytest.approx(math.log(math.e + 2))


@pytest.mark.parametrize("extra", [False, True])
def test_value_and_gradients(extra: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, left, right = (
        torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (5, 5, 3, 2)
    )
    weights = torch.rand(5, generator=generator, dtype=torch.float64)
    inputs = [a, b, left, right] if extra else [a, b]
    found = contrastive(a, b, 0.3, weights, (left, right) if extra else None)
    expected = plain(a, b, 0.3, weights, [left, right] if extra else [])
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(2 * found, inputs), torch.autograd.grad(2 * expected, inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_hardest_negative_is_neither_the_counterpart_nor_the_entity_itself() -> None:
    a = torch.tensor([[1.0, 0.05], [0.9, 0.1], [0.0, 1.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9]])
    assert hardest(a, b, None).tolist() == [4, 3, 1]  # places in [b, a]
    assert hardest(a, b, torch.tensor([[1.0, 0.04]])).tolist() == [6, 3, 1]


def test_a_modality_that_agrees_with_the_joint_vectors_costs_nothing() -> None:
    torch.manual_seed(0)
    a, b, other = torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 4).requires_grad_()
    assert float(distilled(a, b, a, b, 4.0)) == pytest.approx(0, abs=1e-6)
    loss = distilled(other, b, a, b, 1.0)
    assert float(loss.detach()) > 0
    loss.backward()
    assert other.grad is not None
