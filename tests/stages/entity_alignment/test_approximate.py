"""Approximate ranks against exact ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stages.base import StageError
from stages.csls import Array, Selection
from stages.entity_alignment import approximate, ranking


def sides(count: int, noise: float) -> tuple[Selection, Selection]:
    generator = np.random.default_rng(0)
    table = generator.standard_normal((count, 16)).astype(np.float32)

    def noisy() -> Selection:
        rows: Array = table + noise * generator.standard_normal(table.shape).astype(np.float32)
        order = generator.permutation(count)
        mixed = np.empty_like(rows)
        mixed[order] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return Selection(mixed, order)

    return noisy(), noisy()


def test_few_vectors_are_ranked_exactly() -> None:
    pytest.importorskip("faiss")
    left, right = sides(60, 0.5)
    exact, found = ranking.found(left, right, 3), approximate.found(left, right, 3)
    np.testing.assert_array_equal(found.ranks.forward, exact.ranks.forward)
    np.testing.assert_array_equal(found.ranks.backward, exact.ranks.backward)
    for one, other in zip(found.densities, exact.densities, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert approximate.recall(left, right, 0) == 1


def test_most_neighbours_are_found_and_the_rest_ranks_last() -> None:
    pytest.importorskip("faiss")
    left, right = sides(3000, 1.0)
    exact, found = ranking.found(left, right, 3).ranks, approximate.found(left, right, 3).ranks
    assert abs(float((exact.forward <= 1).mean() - (found.forward <= 1).mean())) < 0.01
    last = found.forward == approximate.DEPTH + 1
    assert found.forward.max() == approximate.DEPTH + 1
    assert 0.1 < last.mean() < 0.9
    assert (exact.forward[last] > approximate.DEPTH // 2).mean() > 0.99
    assert approximate.recall(left, right, 0) > 0.97


def test_the_index_does_not_depend_on_the_number_of_threads() -> None:
    faiss = pytest.importorskip("faiss")
    left, right = sides(2000, 0.5)
    before, places = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 4):
            faiss.omp_set_num_threads(threads)
            places.append(approximate.Index(right).nearest(left[:500], 10)[0])
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(places[0], places[1])


def test_without_faiss_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(StageError, match=r"pip install 'bloomline\[faiss\]'"):
        approximate.found(*sides(60, 0.5), 3)
