"""The order of samples is a permutation of each epoch that looks random."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.sample_order import shuffled


@given(size=st.integers(1, 500), seed=st.integers(0, 2**70), epoch=st.integers(0, 10**9))
def test_an_epoch_visits_every_sample_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(epoch * size + n, size, seed) for n in range(size)) == list(range(size))


def test_orders_differ_between_epochs_and_seeds_and_look_random() -> None:
    size = 1000
    first, second = ([shuffled(n + start, size, 1) for n in range(size)] for start in (0, size))
    other = [shuffled(n, size, 2) for n in range(size)]
    for left, right in itertools.combinations([first, second, other, list(range(size))], 2):
        assert sum(a == b for a, b in zip(left, right, strict=True)) < 12  # 1 expected in a random permutation
    # In a random permutation neighbours are a third of the size apart on average.
    distance = sum(abs(a - b) for a, b in itertools.pairwise(first)) / size
    assert 0.28 * size < distance < 0.39 * size
