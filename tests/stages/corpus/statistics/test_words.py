"""Words and marks as rules for English expect them."""

from __future__ import annotations

import time

import pytest

from stages.corpus.statistics.words import tokens


def test_words_are_split_as_tokenizers_of_english_do() -> None:
    text = (
        "Hello, world! I'm sure we can't (or won't) pay $3.50 for O'Brien's state-of-the-art e.g. http://a.com/b?c=1."
    )
    assert list(tokens(text)) == [
        "Hello", ",", "world", "!", "I", "'m", "sure", "we", "ca", "n't", "(", "or", "wo", "n't", ")", "pay", "$",
        "3.50", "for", "O'Brien", "'s", "state", "-", "of", "-", "the", "-", "art", "e.g.", "http://a.com/b?c=1", ".",
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["a+", "a.", "1-", "+1.", "http://", "'s", "n't"])
def test_words_are_split_in_linear_time(unit: str) -> None:
    """Against quadratic patterns, which would take minutes."""
    start = time.process_time()
    assert "".join(tokens(unit * 50_000))
    assert time.process_time() - start < 20
