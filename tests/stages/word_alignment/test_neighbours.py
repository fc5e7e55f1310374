"""CSLS in blocks against its definition written with loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.word_alignment import neighbours
from stages.word_alignment.accuracy import accuracy
from stages.word_alignment.linear import Array, unit
from stages.word_alignment.neighbours import densities, match, nearest, ranks


def naive_csls(queries: Array, keys: Array, k: int) -> Array:
    cosines = [[float(np.dot(x, y)) for y in keys] for x in queries]
    of_queries = [np.mean(sorted(row)[-k:]) for row in cosines]
    of_keys = [np.mean(sorted(row[place] for row in cosines)[-k:]) for place in range(len(keys))]
    return np.array([
        [2 * cosines[i][j] - of_queries[i] - of_keys[j] for j in range(len(keys))] for i in range(len(queries))
    ])  # fmt: skip


@given(
    queries=st.integers(1, 30), keys=st.integers(1, 30), k=st.integers(1, 12), seed=st.integers(0, 1000),
    block=st.sampled_from([1, 40, 1 << 20]),
)  # fmt: skip
def test_blocks_give_the_definition(queries: int, keys: int, k: int, seed: int, block: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (unit(generator.standard_normal((count, 5))) for count in (queries, keys))
    expected = naive_csls(x, y, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK_ELEMENTS", block)
        scores = densities(x, y, k), densities(y, x, k)
        indices, values = nearest(x, y, *scores, 3)
        matching = match(x, y, k)
        found = ranks(x, y, *scores, [{0, keys - 1}] * queries)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(values, np.take_along_axis(expected, order, axis=1), atol=1e-12)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(matching.key_of_query, expected.argmax(axis=1))
    np.testing.assert_array_equal(matching.query_of_key, expected.argmax(axis=0))
    assert matching.criterion == pytest.approx(expected.max(axis=1).mean())
    best = np.maximum(expected[:, 0], expected[:, -1])
    np.testing.assert_array_equal(found, 1 + (expected > best[:, None] + 1e-12).sum(axis=1))


def test_mutual_pairs_choose_each_other() -> None:
    generator = np.random.default_rng(0)
    x, y = (unit(generator.standard_normal((count, 5))) for count in (30, 20))
    matching = match(x, y)
    pairs = set(zip(*(side.tolist() for side in matching.mutual()), strict=True))
    expected = {(i, j) for i, j in enumerate(matching.key_of_query.tolist()) if matching.query_of_key[j] == i}
    assert pairs == expected
    assert pairs


def test_accuracy_counts_the_best_of_several_translations() -> None:
    keys = np.eye(4)
    queries = unit(np.array([[1, 0.5, 0.2, 0.1], [0.5, 1, 0.2, 0.1]]))
    found = accuracy(queries, keys, {0: frozenset({2, 0}), 1: frozenset({3})}, (np.zeros(2), np.zeros(4)))
    assert (found.queries, found.p_at_1, found.p_at_5) == (2, 0.5, 1.0)
    assert found.mrr == pytest.approx((1 + 1 / 4) / 2)
    low, high = found.interval
    assert 0 < low < 0.5 < high < 1
