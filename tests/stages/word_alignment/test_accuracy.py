"""Lexicon induction: the best of several translations counts."""

from __future__ import annotations

import numpy as np
import pytest

from stages.word_alignment.accuracy import accuracy
from stages.word_alignment.linear import unit


def test_accuracy_counts_the_best_of_several_translations() -> None:
    keys = np.eye(4)
    queries = unit(np.array([[1, 0.5, 0.2, 0.1], [0.5, 1, 0.2, 0.1]]))
    found = accuracy(queries, keys, {0: frozenset({2, 0}), 1: frozenset({3})}, (np.zeros(2), np.zeros(4)))
    assert (found.queries, found.p_at_1, found.p_at_5) == (2, 0.5, 1.0)
    assert found.mrr == pytest.approx((1 + 1 / 4) / 2)
    low, high = found.interval
    assert 0 < low < 0.5 < high < 1
