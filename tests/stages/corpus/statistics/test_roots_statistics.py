"""ROOTS' eight statistics are what they are by definition."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics import roots_statistics as roots


def test_words_stand_between_spaces_without_special_characters_at_their_ends() -> None:
    assert roots.words("«Bonjour», dit-il ... 12 😀 l’été!\n\tEt toi?") == [
        "Bonjour",
        "dit-il",
        "l’été",
        "Et",
        "toi",
    ]
    assert roots.words("我们是, 中国人。 GPT-4", "zh") == ["我们", "是", "中国人", "GPT"], "words of a dictionary"
    assert roots.words("... 123 !!!") == []


def test_character_repetition_takes_as_many_grams_as_the_root_of_the_distinct_ones() -> None:
    # abcabcabcxyz: 3-grams abc 3, bca 2, cab 2, bcx cxy xyz 1 each: 6 distinct, so the 2 most frequent: 5 of 10.
    assert roots.character_repetition("abcabcabcxyz", 3) == 0.5
    # aaab: aa 2, ab 1: two distinct, root 1, one of them repeated: 2 of 3.
    assert roots.character_repetition("aaab", 2) == pytest.approx(2 / 3)
    # Nothing occurs twice: distinct minus singletons is 0.
    assert roots.character_repetition("abcdef", 3) == 0
    assert roots.character_repetition("ab", 3) == 0
    assert roots.character_repetition("", 10) == 0
    # All the same: one distinct gram, all of them.
    assert roots.character_repetition("z" * 50, 10) == 1


def test_word_repetition_is_the_mass_of_grams_that_occur_more_than_once() -> None:
    # a b a b c: pairs ab 2, ba 1, bc 1: 2 of 4.
    assert roots.word_repetition(["a", "b", "a", "b", "c"], 2) == 0.5
    assert roots.word_repetition(["a", "b"], 5) == 0
    assert roots.word_repetition(["a"] * 9, 5) == 1


def test_special_characters_are_counted_with_spaces_digits_and_emoji() -> None:
    assert roots.special_character_ratio("ab 1!😀") == pytest.approx(4 / 6)
    assert roots.special_character_ratio("abc") == 0
    assert roots.special_character_ratio("") == 0


def test_listed_words_and_neighbours() -> None:
    listed = frozenset({"the", "of", "trung quốc", "我们"})
    assert roots.listed_ratio(["the", "end", "of", "it"], listed, None) == 0.5
    assert roots.listed_ratio(["tôi", "ở", "trung", "quốc"], listed, None) == 0
    assert roots.listed_ratio(["tôi", "ở", "trung", "quốc"], listed, " ") == 0.25, (
        "Vietnamese: syllables joined by a space"
    )
    assert roots.listed_ratio(["我", "们", "好"], listed, "") == pytest.approx(1 / 3), "Chinese: joined by nothing"
    assert roots.listed_ratio(["a", "a", "a"], frozenset({"a", "a a"}), " ") == 1, "never more than 1"
    assert roots.listed_ratio([], listed, None) == 0


def reference_character_repetition(text: str, length: int) -> float:
    counts = sorted(Counter(text[i : i + length] for i in range(len(text) - length + 1)).values(), reverse=True)
    if not counts:
        return 0
    taken = min(int(math.sqrt(len(counts))), len(counts) - counts.count(1))
    return sum(counts[:taken]) / sum(counts)


@given(st.text(alphabet="ab é中😀", max_size=80), st.integers(1, 10))
def test_character_repetition_is_that_of_the_definition(text: str, length: int) -> None:
    assert roots.character_repetition(text, length) == pytest.approx(reference_character_repetition(text, length))


@given(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=40), st.integers(1, 7))
def test_word_repetition_is_that_of_the_definition(words: list[str], length: int) -> None:
    counts = Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
    expected = sum(count for count in counts.values() if count > 1) / max(counts.total(), 1)
    assert roots.word_repetition(words, length) == pytest.approx(expected)
