"""Perplexity is per word and line, and per character in scripts without spaces."""

from __future__ import annotations

import numpy as np
import pytest

from stages.artifacts.byte_ngrams import HashedCounts, bits
from stages.corpus.statistics.word_perplexity import word_perplexity


def test_perplexity_is_per_word_and_line_and_per_character_without_spaces() -> None:
    counts = HashedCounts(3, 16)
    counts.add([b"one two three " * 50, "我们是学生。".encode() * 50])
    assert word_perplexity(counts, "one two\nthree") == pytest.approx(2 ** (bits(counts, b"one two\nthree") / 5))
    chinese = "我们是"
    assert word_perplexity(counts, chinese) == pytest.approx(2 ** (bits(counts, chinese.encode()) / (3 + 1 + 1)))
    assert word_perplexity(counts, "") == 1
    assert np.isfinite(word_perplexity(counts, "\ud800" * 10_000))
