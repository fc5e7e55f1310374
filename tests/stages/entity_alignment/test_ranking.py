"""CSLS in blocks equals CSLS on the whole matrix, and the implementation of another library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment import ranking
from stages.entity_alignment.ranking import densities, mutual_nearest, nearest, ranks


def whole(left: Tensor, right: Tensor, k: int) -> Tensor:
    """CSLS of all pairs as its definition says."""
    cosine = left @ right.t()
    of_left = cosine.topk(min(k, len(right)), dim=1).values.mean(1)
    of_right = cosine.topk(min(k, len(left)), dim=0).values.mean(0)
    return 2 * cosine - of_left[:, None] - of_right


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**30))
def test_blocks_change_nothing(n: int, m: int, k: int, block: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, right = (F.normalize(torch.randn(size, 4, generator=generator)) for size in (n, m))
    expected = whole(left, right, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_ELEMENTS", block)
        places, scores = nearest(left, right, *densities(left, right, k), 3)
        mutual = {tuple(pair) for pair in mutual_nearest(left, right).tolist()}
        same = min(n, m)
        found = ranks(left[:same], right[:same], k)
    torch.testing.assert_close(scores, expected.topk(min(3, m), dim=1).values, atol=1e-5, rtol=0)
    torch.testing.assert_close(expected.gather(1, places), scores, atol=1e-5, rtol=0)
    cosine = left @ right.t()
    assert mutual == {
        (row, int(cosine[row].argmax())) for row in range(n) if int(cosine[:, cosine[row].argmax()].argmax()) == row
    }
    square = whole(left[:same], right[:same], k)
    true = square.diagonal()
    assert found.forward.tolist() == [1 + int((square[i] > true[i] + 1e-6).sum()) for i in range(same)]
    assert found.backward.tolist() == [1 + int((square[:, i] > true[i] + 1e-6).sum()) for i in range(same)]


def test_agrees_with_kiez() -> None:
    # kiez 0.5.0 (CSLS, SklearnNN, cosine, 3 candidates) on these vectors: for each query its three nearest keys under
    # the cosine, in the order of CSLS, whose negative is its distance.
    random = np.random.default_rng(5)
    left, right = (F.normalize(torch.from_numpy(random.standard_normal((n, 4)))).float() for n in (12, 15))
    places = [[7, 13, 11], [4, 3, 1], [14, 3, 12], [14, 12, 9]]
    distances = [
        [-0.036298, 0.103798, 0.21607], [-0.289906, 0.028858, 0.037909], [-0.398927, 0.139197, 0.696163],
        [-0.230931, 0.014053, 0.399296],
    ]  # fmt: skip
    found, scores = nearest(left, right, *densities(left, right, 3), 15)
    for query in range(4):
        by_key = dict(zip(found[query].tolist(), scores[query].tolist(), strict=True))
        assert [-by_key[place] for place in places[query]] == pytest.approx(distances[query], abs=1e-5)


def test_equal_vectors_share_the_mean_of_their_ranks() -> None:
    same = torch.ones(4, 1)
    assert ranks(same, same, 0).forward.tolist() == [2.5] * 4


def test_cosine_without_hubness_reduction() -> None:
    left = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0]]))
    right = F.normalize(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert ranks(left, right, 0).forward.tolist() == [2, 2]
