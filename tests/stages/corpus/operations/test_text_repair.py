"""Text is repaired, normalised and cleaned; lines and sizes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.operations.operation import Draft
from tests.stages.corpus.operations.support import apply, made, rule_of, text_of


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("it â€œworksâ€\x9d", "it “works”"),
        ("&lt;3 &amp; more", "<3 & more"),
        ("plain", "plain"),
        ("“curly” ﬁne", "“curly” ﬁne"),
    ],
)
def test_wrong_decoding_is_undone_and_nothing_else(broken: str, whole: str) -> None:
    assert text_of(apply("repair_unicode", broken)) == whole


def test_quotes_and_ligatures_change_only_on_demand() -> None:
    assert text_of(apply("repair_unicode", "“curly” ﬁne", straight_quotes=True, ligatures=True)) == '"curly" fine'


@given(st.text())
def test_unicode_normalisation_is_that_of_the_standard(text: str) -> None:
    for form in ("NFC", "NFKD"):
        assert text_of(apply("normalise", text, form=form)) == unicodedata.normalize(form, text)


def test_white_space_becomes_uniform() -> None:
    text = "\ufeff  one \u00a0 two\t three\r\n\r\n\r\n\r\n  four\u2028five\x00 \n"
    assert text_of(apply("white_space", text)) == "one two three\n\nfour\nfive"


def test_code_keeps_its_indentation() -> None:
    assert (
        text_of(apply("white_space", "def f():\n\treturn  1   \r\n\n\n\n", indentation=True)) == "def f():\n\treturn  1"
    )


@given(st.text(alphabet=st.sampled_from(" \t\n\r\x0b\u2028ab\u3000\x00"), max_size=40))
def test_uniform_white_space_stays_so(text: str) -> None:
    once = text_of(apply("white_space", text))
    assert text_of(apply("white_space", once)) == once
    assert "".join(once.split()) == "".join(text.replace("\x00", "").split())


def test_too_many_replacement_characters_drop_a_text() -> None:
    assert rule_of(apply("replacement_characters", "a" * 999 + "\ufffd")) is None
    assert rule_of(apply("replacement_characters", "a" * 998 + "\ufffd\ufffd")) == "replacement_characters"


def test_roots_lists_remove_lines() -> None:
    text = "prose\nif (x) { y }\n<div>menu</div>\nÀ À\nend [if lt IE]"
    assert text_of(apply("remove_lines", text, lists=["code"])) == "prose\n<div>menu</div>\nÀ À"
    assert text_of(apply("remove_lines", text, lists=["code", "html_spans", "wiki_mojibake"])) == "prose"
    assert text_of(apply("remove_lines", "a+b\nab", substrings=["a+b"])) == "ab"


def test_substrings_are_cut_the_longest_first() -> None:
    text = "cat. If you are familiar with the IPA then please add some!This entry needs audio files"
    assert text_of(apply("remove_substrings", text, lists=["en_wiktionary"])) == "cat. "
    assert text_of(apply("remove_substrings", "abcab", substrings=["ab", "abc"])) == ""


def test_references_at_the_end_are_cut_and_only_there() -> None:
    article = (
        "Smith, Jones 1999\nThis is what we have found in the data.\nReferences\n[1] Smith, J. 1999. Physica 3:12\n"
    )
    found = apply("remove_references", article, {"language": "en"})
    assert text_of(found) == "Smith, Jones 1999\nThis is what we have found in the data."
    assert text_of(apply("remove_references", article, {"language": "tum"})) == article, "no stop words are known"


def test_sentences_get_a_line_each() -> None:
    text = "Dr. Smith went home. “Why?” He asked! It cost $3.50 e.g. there.\nनमस्ते। आप कैसे हैं? Ok"
    assert text_of(apply("split_sentences", text)).split("\n") == [
        "Dr. Smith went home.",
        "“Why?”",
        "He asked!",
        "It cost $3.50 e.g. there.",
        "नमस्ते।",
        "आप कैसे हैं?",
        "Ok",
    ]
    assert text_of(apply("split_sentences", "你好。我们是学生！好")) == "你好。\n我们是学生！\n好"


@given(st.text(alphabet=st.sampled_from("aA.!? \n\"'。é"), max_size=60))
def test_splitting_sentences_loses_nothing_but_spaces(text: str) -> None:
    assert "".join(text_of(apply("split_sentences", text)).split()) == "".join(text.split())


def test_newlines_become_spaces() -> None:
    assert text_of(apply("newlines_to_spaces", "a\nb\n\nc")) == "a b  c"


@pytest.mark.parametrize(
    ("operation", "text", "rule"),
    [
        ("words", "w " * 15, None),
        ("words", "w " * 14, "too_few"),
        ("bytes", "é" * 150, None),
        ("bytes", "é" * 149 + "e", "too_few"),
        ("characters", "  \n\t ", "too_few"),
        ("characters", " x ", None),
    ],
)
def test_sizes_are_counted_in_their_unit(operation: str, text: str, rule: str | None) -> None:
    assert rule_of(apply(operation, text)) == rule


def test_words_of_languages_without_spaces_are_those_of_a_dictionary() -> None:
    chinese = "我们是中国人，今天天气很好。"  # 我们 是 中国人 今天 天气 很好
    for language, minimum, rule in (("zhs", 6, None), ("zh-TW", 7, "too_few"), ("en", 2, "too_few")):
        assert rule_of(apply("words", chinese, {"language": language}, minimum=minimum)) == rule


def test_a_drop_says_what_was_found_and_what_was_allowed() -> None:
    found = apply("words", "one two three", maximum=20)
    assert (found.rule, found.value, found.threshold) == ("too_few", 3, 15)  # type: ignore[union-attr]
    assert rule_of(apply("words", "w " * 21, maximum=20)) == "too_many"


def test_a_text_that_stays_is_the_same_draft() -> None:
    draft = Draft("One sentence.", path="p")
    for name in ("repair_unicode", "normalise", "white_space", "newlines_to_spaces", "split_sentences"):
        assert made(name).function()(draft) is draft
