"""Inference computes what torch does, and each row with the same bits whatever is computed with it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's customary name
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model import independent_rows

TYPES = st.sampled_from([torch.float32, torch.bfloat16])


@settings(max_examples=40)
@given(
    rows=st.integers(1, 40),
    inner=st.sampled_from([5, 48, 64, 100, 256]),
    outer=st.sampled_from([3, 16, 80, 300]),
    bias=st.booleans(),
    dtype=TYPES,
)
@torch.inference_mode()
def test_linear(rows: int, inner: int, outer: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
    added = torch.randn(outer, dtype=dtype) if bias else None
    whole = independent_rows.linear(x, weight, added)
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(whole, F.linear(x, weight, added), atol=tolerance, rtol=1e-2)
    for start in range(rows):
        alone = independent_rows.linear(x[start : start + 1], weight, added)
        assert torch.equal(alone, whole[start : start + 1])


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [(independent_rows.silu, F.silu), (independent_rows.gelu_tanh, lambda x: F.gelu(x, approximate="tanh"))],
)
@settings(max_examples=25)
@given(rows=st.integers(1, 12), width=st.sampled_from([1, 16, 80, 100, 320, 8000]), dtype=TYPES)
@torch.inference_mode()
def test_activations(ours, torchs, rows: int, width: int, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(rows)
    x = (3 * torch.randn(rows, width)).to(dtype)
    before, whole = x.clone(), ours(x)
    torch.testing.assert_close(whole, torchs(x), atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=1e-2)
    assert torch.equal(x, before)
    assert torch.equal(torch.cat([ours(row) for row in x.split(1)]), whole)


def test_with_gradients_they_are_torchs_own() -> None:
    x, weight = torch.randn(3, 80, requires_grad=True), torch.randn(7, 80)
    assert torch.equal(independent_rows.linear(x, weight), F.linear(x, weight))
    assert torch.equal(independent_rows.silu(x), F.silu(x))
    assert independent_rows.gelu_tanh(x).requires_grad
