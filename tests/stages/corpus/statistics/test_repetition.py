"""Repeated grams of words are those that counting by hand finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.repetition import WordGrams


def top_characters(words: list[str], length: int) -> int:
    grams = [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]
    return max((len(gram) * grams.count(gram) for gram in grams[:1]), default=0) if not grams else _top(grams)


def _top(grams: list[str]) -> int:
    most = max(map(grams.count, grams))
    first = next(gram for gram in grams if grams.count(gram) == most)
    return len(first) * most


def repeated_characters(words: list[str], length: int) -> int:
    seen, characters, place = set(), 0, 0
    while place + length <= len(words):
        gram = tuple(words[place : place + length])
        if gram in seen:
            characters += sum(map(len, gram))
            place += length
        else:
            seen.add(gram)
            place += 1
    return characters


@given(st.lists(st.sampled_from(["a", "b", "cc", "ddd"]), max_size=40), st.integers(1, 6), st.integers(0, 60))
def test_grams_are_counted_as_by_hand(words: list[str], length: int, limit: int) -> None:
    grams = WordGrams(words)
    assert grams.most_frequent_characters(length) == top_characters(words, length)
    found, expected = grams.repeated_characters(length, limit), repeated_characters(words, length)
    assert (found > limit) == (expected > limit)
    assert found == expected or expected <= found <= limit
    assert WordGrams(words).repeated_characters(length, -1) == expected
