"""Sparse products and their gradients are those of dense matrices."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.entity_alignment.sparse import SparseRows, places_of, product


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**30), st.floats(0.1, 1))
def test_products_and_gradients(rows: int, columns: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < share
    places, counts = places_of(mask.nonzero()[:, 0], mask.nonzero()[:, 1], (rows, columns))
    assert counts.eq(1).all()
    values = torch.randn(int(mask.sum()), generator=generator, dtype=torch.float64, requires_grad=True)
    right = torch.randn(columns, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    outward = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    found = product(places, values, right)
    (found * outward).sum().backward()

    again = [one.detach().clone().requires_grad_() for one in (values, right)]
    dense = torch.zeros(rows, columns, dtype=torch.float64).masked_scatter(mask, again[0])
    expected = dense @ again[1]
    (expected * outward).sum().backward()
    torch.testing.assert_close(found, expected)
    for one, other in zip((values, right), again, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**30))
def test_selected_rows(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, generator=generator) * (torch.rand(rows, columns, generator=generator) < 0.5)
    places, _ = places_of(dense.nonzero()[:, 0], dense.nonzero()[:, 1], (rows, columns))
    whole = SparseRows(places, dense[dense != 0])
    wanted = torch.randint(rows, (4,), generator=generator)
    part = whole.select(wanted)
    torch.testing.assert_close(part.places.matrix(part.values).to_dense(), dense[wanted])
    compact, kept = part.places.compact()
    torch.testing.assert_close(compact.matrix(part.values).to_dense(), dense[wanted][:, kept])
