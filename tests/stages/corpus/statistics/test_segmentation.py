"""Words of languages that put no space between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.statistics.segmentation import UNSPACED, count_words, segments


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("zh", "我们是中国人，今天天气很好。", ["我们", "是", "中国人", "，", "今天", "天气", "很好", "。"]),
        ("ja", "東京の日本語、学校。", ["東京", "の", "日本語", "、", "学校", "。"]),
        ("th", "ภาษาไทยเป็นภาษาราชการ", ["ภาษา", "ไทย", "เป็น", "ภาษา", "ราชการ"]),
        ("lo", "ພາສາລາວເປັນພາສາ", ["ພາສາ", "ລາວ", "ເປັນ", "ພາສາ"]),
    ],
)
def test_words_are_those_of_the_dictionary(language: str, text: str, words: list[str]) -> None:
    assert segments(text, language) == words


def test_khmer_and_burmese_sentences_are_several_words() -> None:
    assert count_words("ភាសាខ្មែរជាភាសាផ្លូវការ", "km") >= 3
    assert count_words("မြန်မာဘာသာစကားသည် ရုံးသုံးဘာသာစကားဖြစ်သည်", "my") >= 4


def test_words_are_counted_without_what_stands_between_them() -> None:
    assert count_words("我们是中国人，今天天气很好。 GPT 4!", "zh") == 8
    assert count_words("We are 4 people -- today!", "en") == 6, "between white space, as ROOTS counted"
    assert count_words("", "zh") == 0
    assert count_words("。、！", "ja") == 0


@given(st.text(st.characters(), max_size=60), st.sampled_from(sorted(UNSPACED)))
def test_nothing_is_lost_but_halves_of_characters(text: str, language: str) -> None:
    assert "".join(segments(text, language)) == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
