"""CSLS in blocks against its definition written with loops, and against the implementation of another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import csls
from stages.csls import Array, Selection, densities, match, nearest, places, ranks


def unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def naive_csls(queries: Array, keys: Array, k: int) -> Array:
    cosines = [[float(np.dot(x, y)) for y in keys] for x in queries]
    if not k:
        return 2 * np.array(cosines)
    of_queries = [np.mean(sorted(row)[-k:]) for row in cosines]
    of_keys = [np.mean(sorted(row[place] for row in cosines)[-k:]) for place in range(len(keys))]
    return np.array([
        [2 * cosines[i][j] - of_queries[i] - of_keys[j] for j in range(len(keys))] for i in range(len(queries))
    ])  # fmt: skip


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csls, "BLOCK_ELEMENTS", 40)


@given(
    queries=st.integers(1, 30), keys=st.integers(1, 30), k=st.integers(0, 12), seed=st.integers(0, 1000),
    block=st.sampled_from([1, 4, 25, 40, 1 << 20]),
)  # fmt: skip
def test_blocks_give_the_definition(queries: int, keys: int, k: int, seed: int, block: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (unit(generator.standard_normal((count, 5))) for count in (queries, keys))
    expected = naive_csls(x, y, k)
    correct = np.array([(query, key) for query in range(queries) for key in {0, keys - 1}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csls, "BLOCK_ELEMENTS", block)
        found_densities = densities(x, y, k)
        indices, values = nearest(x, y, *found_densities, 3)
        matching = match(x, y, k)
        found = ranks(x, y, *found_densities, generator.permutation(correct))
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(values, np.take_along_axis(expected, order, axis=1), atol=1e-12)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(matching.key_of_query, expected.argmax(axis=1))
    np.testing.assert_array_equal(matching.query_of_key, expected.argmax(axis=0))
    assert matching.criterion == pytest.approx(expected.max(axis=1).mean())
    best = np.maximum(expected[:, 0], expected[:, -1])
    np.testing.assert_array_equal(found, 1 + (expected > best[:, None] + 1e-12).sum(axis=1))


@given(queries=st.integers(1, 50), keys=st.integers(1, 50), block=st.integers(1, 60))
def test_blocks_cover_every_pair_once_and_stay_small(queries: int, keys: int, block: int) -> None:
    covered = np.zeros((queries, keys), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csls, "BLOCK_ELEMENTS", block)
        for rows, columns in places(queries, keys):
            covered[rows, columns] += 1
            assert (rows.stop - rows.start) * (columns.stop - columns.start) <= block
    assert (covered == 1).all()


def test_mutual_pairs_choose_each_other() -> None:
    generator = np.random.default_rng(0)
    x, y = (unit(generator.standard_normal((count, 5))) for count in (30, 20))
    matching = match(x, y, 10)
    pairs = set(zip(*(side.tolist() for side in matching.mutual()), strict=True))
    expected = {(i, j) for i, j in enumerate(matching.key_of_query.tolist()) if matching.query_of_key[j] == i}
    assert pairs == expected
    assert pairs


def test_equal_vectors_share_the_mean_of_their_ranks(small_blocks: None) -> None:
    vector = unit(np.random.default_rng(0).standard_normal((1, 37)).astype(np.float32))
    same = np.repeat(vector, 24, axis=0)  # a block has 6 x 6 of them
    pairs = np.repeat(np.arange(24)[:, None], 2, axis=1)
    assert ranks(same, same, *densities(same, same, 0), pairs).tolist() == [12.5] * 24


def test_a_memory_map_and_a_selection_of_its_rows(small_blocks: None, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    table = unit(generator.standard_normal((60, 4)))
    np.save(tmp_path / "table.npy", table)
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    rows = generator.permutation(60)
    left, right = Selection(mapped, rows[:20]), Selection(mapped, rows[20:])
    expected = densities(table[rows[:20]], table[rows[20:]], 3)
    for one, other in zip(densities(left, right, 3), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    np.testing.assert_array_equal(left[np.array([[3], [0]])], table[rows[[[3], [0]]]])


def test_agrees_with_kiez() -> None:
    # kiez 0.5.0 (CSLS, SklearnNN, cosine, 3 candidates) on these vectors: for each query its three nearest keys under
    # the cosine, in the order of CSLS, whose negative is its distance.
    random = np.random.default_rng(5)
    left, right = (unit(random.standard_normal((n, 4))) for n in (12, 15))
    expected = [[7, 13, 11], [4, 3, 1], [14, 3, 12], [14, 12, 9]]
    distances = [
        [-0.036298, 0.103798, 0.21607], [-0.289906, 0.028858, 0.037909], [-0.398927, 0.139197, 0.696163],
        [-0.230931, 0.014053, 0.399296],
    ]  # fmt: skip
    found, scores = nearest(left, right, *densities(left, right, 3), 15)
    for query in range(4):
        by_key = dict(zip(found[query].tolist(), scores[query].tolist(), strict=True))
        assert [-by_key[place] for place in expected[query]] == pytest.approx(distances[query], abs=1e-5)
