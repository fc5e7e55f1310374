"""Records spilled to disk: repeated keys are found exactly as a dictionary would find them, within any memory limit."""

from __future__ import annotations

import random
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.ingestion import spill as spills
from stages.corpus.ingestion.spill import Spill, repeats


def oracle(records: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    first: dict[int, int] = {}
    for key, value in records:
        first[key] = min(value, first.get(key, value))
    return sorted((key, value, first[key]) for key, value in records if value != first[key])


@settings(max_examples=80)
@given(
    keys=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)), max_size=300),
    seed=st.integers(0, 9),
    fewest=st.sampled_from((1, 7, 64, 1000)),
    at_once=st.sampled_from((1, 5, 1000)),
)
def test_repeated_records_are_those_that_a_dictionary_finds(
    keys: list[int], seed: int, fewest: int, at_once: int
) -> None:
    records = list(zip(keys, random.Random(seed).sample(range(1000), len(keys)), strict=True))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(spills, "FEWEST_RECORDS", fewest)
        with Spill(Path(folder), memory_bytes=1) as spill:
            for start in range(0, len(records), at_once):
                some = records[start : start + at_once]
                spill.add(np.array([key for key, _ in some], np.uint64), np.array([value for _, value in some]))
            assert len(spill) == len(records)
            found = [
                row for batch in repeats(spill) for row in zip(*(column.tolist() for column in batch), strict=True)
            ]
            read = [key for pieces in spill.parts() for keys, _ in pieces() for key in keys.tolist()]
        assert sorted(found) == oracle(records)
        assert sorted(read) == sorted(keys)
        assert not list(Path(folder).iterdir())  # nothing stays


@given(
    st.lists(
        st.one_of(
            st.integers(0, 3),
            st.integers(2**40, 2**40 + 9),
            st.integers(2**63, 2**63 + 2000),
            st.integers(0, 2**64 - 1),
        ),
        max_size=200,
    )
)
def test_the_order_is_that_of_a_stable_sort(keys: list[int]) -> None:
    with Spill(Path("unused"), memory_bytes=1) as spill:
        spill.add(np.array(keys, np.uint64), np.arange(len(keys)))
        found = [pair for pieces in spill.parts() for piece in pieces() for pair in zip(*piece, strict=True)]
    assert found == sorted(zip(keys, range(len(keys)), strict=True))


@pytest.mark.parametrize("different", [1 << 62, 3])  # keys: hardly one twice, and hardly one once
def test_memory_does_not_grow_with_the_records(tmp_path: Path, different: int) -> None:
    peaks = []
    for times in (1, 4):
        draw = np.random.default_rng(0)
        tracemalloc.start()
        again = 0
        with Spill(tmp_path, memory_bytes=5 << 20) as spill:
            for start in range(0, times * 400_000, 10_000):
                spill.add(draw.integers(0, different, 10_000).astype(np.uint64), np.arange(start, start + 10_000))
            for _, values, _ in repeats(spill):
                again += len(values)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert again == (0 if different > 3 else times * 400_000 - 3)
    assert max(peaks) < 2 * (5 << 20), peaks
