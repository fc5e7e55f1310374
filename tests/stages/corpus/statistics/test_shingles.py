"""Hashes of runs of words are equal where the words are, and nowhere else."""

from __future__ import annotations

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.shingles import shingles

texts = st.lists(st.text(st.sampled_from("abAB é1 ,-\n中国ก\u0301"), max_size=14), min_size=1, max_size=5)


def words_of(text: str) -> list[str]:
    """Runs of letters, marks and digits in lower case; of scripts without spaces every character."""
    found, before = [], "between"
    for character in text:
        kind = (
            "between" if unicodedata.category(character)[0] not in "LMN" else "word" if character in "中国ก" else "in"
        )
        if kind == "word" or (kind == "in" and before != "in"):
            found.append("")
        if kind != "between":
            found[-1] += character.lower()
        before = kind
    return found


@given(texts, st.integers(1, 3))
def test_runs_are_equal_where_their_words_are(texts: list[str], length: int) -> None:
    expected = []
    for text in texts:
        words = words_of(text)
        runs = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)] or [tuple(words)][: len(words)]
        expected.append(runs)
    found = shingles(texts, length)
    assert np.diff(found.starts).tolist() == list(map(len, expected))
    by_run: dict[tuple[str, ...], int] = {}
    for run, key in zip((run for runs in expected for run in runs), found.hashes.tolist(), strict=True):
        assert by_run.setdefault(run, key) == key
    assert len(set(by_run.values())) == len(by_run)
