"""Every token of a split is a target once, and packed documents have different numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.tokens import TokenDataset
from stages.artifacts.windows import Windows


@given(length=st.integers(0, 200), sequence_length=st.integers(1, 20))
def test_every_target_is_in_one_sample(length: int, sequence_length: int) -> None:
    windows = Windows(np.arange(length), length, sequence_length, np.zeros(1))
    rest = max(length - 1, 0) % sequence_length
    targets = [windows.batch([sample])[1] for sample in range(windows.count)]
    assert [int(one) for row in targets for one in row.flatten()] == list(range(1, max(length, 1) - rest))


def test_document_numbers_count_the_ends_before_a_token() -> None:
    windows = Windows(np.array([9, 1, 0, 0, 2, 3, 0, 4, 5]), 9, 4, np.array([0, 3, 4, 7]))
    inputs, targets, documents = windows.batch([1, 0])
    assert inputs.tolist() == [[2, 3, 0, 4], [9, 1, 0, 0]]
    assert targets.tolist() == [[3, 0, 4, 5], [1, 0, 0, 2]]
    assert documents.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert windows.seconds > 0


def test_real_documents_are_separated_where_they_end(tokens: TokenDataset) -> None:
    split = tokens.split("train")
    windows = Windows(split.tokens, split.length, 64, split.starts)
    assert windows.count == (split.length - 1) // 64
    second_start = int(split.starts[1])
    inputs, targets, documents = windows.batch([second_start // 64])
    place = second_start % 64
    assert inputs[0, place - 1] == tokens.end_of_text
    assert documents[0].tolist() == [0] * place + [1] * (64 - place)
    assert targets[0, :-1].equal(inputs[0, 1:])


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_of_shuffled_batches_holds_every_sample(epoch: int) -> None:
    windows = Windows(np.arange(41), 41, 4, np.zeros(1))
    numbers = range(epoch * 10, epoch * 10 + 10)
    starts = windows.shuffled_batch(numbers, seed=5)[0][:, 0].tolist()
    assert sorted(starts) == list(range(0, 40, 4)) != starts
