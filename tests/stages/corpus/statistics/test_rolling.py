"""Hashes of runs of bytes are equal where the bytes are, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.rolling import inverse_powers, mixed, prefix_sums


@given(st.binary(max_size=40), st.integers(1, 6))
def test_runs_are_equal_where_their_bytes_are(data: bytes, length: int) -> None:
    runs = [data[at : at + length] for at in range(len(data) - length + 1)]
    sums = prefix_sums(np.frombuffer(data, np.uint8))
    keys = mixed((sums[length:] - sums[:-length]) * inverse_powers(len(runs))).tolist() if runs else []
    assert len(set(keys)) == len(set(runs)) == len(set(zip(runs, keys, strict=True)))
