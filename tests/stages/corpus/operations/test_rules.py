"""Gopher's, FineWeb's, C4's and ROOTS' code rules, each on texts on either side of its threshold."""

from __future__ import annotations

from typing import Any

import pytest

from stages.corpus.operations.registry import OPERATIONS
from tests.stages.corpus.operations.support import apply, rule_of, text_of

WORDS = [f"{first}{second}{third}da" for first in "bdfgklmnprst" for second in "aeiou" for third in "lmnrst"]


def prose(words: int = 60) -> str:
    """Different words with "the" and "of" among them."""
    return " ".join(["the", "of", *WORDS][:words]) + "."


def defaults(name: str) -> dict[str, Any]:
    return {key: field.default for key, field in OPERATIONS.load(name).model_fields.items() if key != "operation"}


def test_defaults_are_those_of_the_papers() -> None:
    gopher = defaults("gopher_quality")
    assert gopher.pop("stop_words") == ("the", "be", "to", "of", "and", "that", "have", "with")
    assert gopher == {
        "min_words": 50, "max_words": 100_000, "min_mean_word_length": 3, "max_mean_word_length": 10,
        "max_symbols_per_word": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3, "min_alphabetic_words": 0.8,
        "min_stop_words": 2,
    }  # fmt: skip
    assert defaults("gopher_repetition") == {
        "max_duplicate_lines": 0.3, "max_duplicate_paragraphs": 0.3,
        "max_duplicate_line_characters": 0.2, "max_duplicate_paragraph_characters": 0.2,
        "max_top_grams": ((2, 0.2), (3, 0.18), (4, 0.16)),
        "max_repeated_grams": ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
    }  # fmt: skip
    assert defaults("fineweb_quality") == {
        "min_ended_lines": 0.12, "max_short_lines": 0.67, "short_line": 30, "max_duplicate_line_characters": 0.01,
        "max_newlines_per_word": 0.3,
    }  # fmt: skip
    c4 = defaults("c4_quality")
    assert (c4["min_sentences"], c4["min_words_per_line"], c4["max_word_length"]) == (5, 3, 1000)
    assert defaults("code_quality") == {
        "more_than_characters": 100, "less_than_characters": 200_000,
        "special_more_than": 0.15, "special_less_than": 0.65, "token_length_deviation_more_than": 3,
        "longest_line_more_than": 20, "longest_line_less_than": 1000, "drop_generated": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language_rule"),
    [
        (prose(50), None),
        (prose(49), "too_few_words"),
        ("the of " + "ab " * 58, "short_words"),
        ("the of " + "a" * 11 + " " + "abcdefghijkl " * 60, "long_words"),
        (prose(60) + " #" * 6, None),
        (prose(60) + " #" * 8, "many_hashes"),
        (prose(60) + " … ... …" * 3, "many_ellipses"),
        ("\n".join(f"- {word} the of" for word in WORDS[:20]), "bullet_lines"),
        ("\n".join(f"• {word} {word} of the" for word in WORDS[:18]) + "\nlast\nlines", None),
        (
            "\n".join(f"the of {word} {word}..." for word in WORDS[:4]) + "\n" + "\n".join([prose(30)] * 6),
            "ellipsis_lines",
        ),
        ("\n".join(f"the of {word} {word}..." for word in WORDS[:3]) + "\n" + "\n".join([prose(30)] * 7), None),
        ("the of " + "alpha 123 " * 30, "alphabetic_words"),
        (" ".join(WORDS[:60]) + " the", "stop_words"),
        (" ".join(WORDS[:60]) + " the the the", "stop_words"),
        (" ".join(WORDS[:60]) + " the with", None),
    ],
)
def test_gopher_quality(text: str, language_rule: str | None) -> None:
    assert rule_of(apply("gopher_quality", text)) == language_rule


def test_gopher_quality_takes_any_stop_words() -> None:
    text = " ".join(WORDS[:60]) + " le la"
    assert rule_of(apply("gopher_quality", text)) == "stop_words"
    assert rule_of(apply("gopher_quality", text, stop_words=["le", "la"])) is None
    assert rule_of(apply("gopher_quality", "", min_words=0)) is None


OFF = {
    "max_duplicate_lines": 1, "max_duplicate_paragraphs": 1, "max_duplicate_line_characters": 1,
    "max_duplicate_paragraph_characters": 1, "max_top_grams": [], "max_repeated_grams": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parameters", "rule"),
    [
        ("a\na\nb\nc\nd\ne\nf\ng\nh\ni", {"max_duplicate_lines": 0.1}, None),
        ("a\na\na\nc\nd\ne\nf\ng\nh\ni", {"max_duplicate_lines": 0.1}, "duplicate_lines"),
        ("a\n\na\n\nb\n\nc", {"max_duplicate_paragraphs": 0.25}, None),
        ("a\n\na\n\na\n\nc", {"max_duplicate_paragraphs": 0.25}, "duplicate_paragraphs"),
        ("abcd\nabcd\nx", {"max_duplicate_line_characters": 0.37}, None),
        ("abcd\nabcd\nx", {"max_duplicate_line_characters": 0.36}, "duplicate_line_characters"),
        ("abcd\n\nabcd\n\nx", {"max_duplicate_paragraph_characters": 0.3}, "duplicate_paragraph_characters"),
        # "a b" twice: 2 * 3 characters of 9.
        ("a b a b c", {"max_top_grams": [[2, 0.67]]}, None),
        ("a b a b c", {"max_top_grams": [[2, 0.66]]}, "top_2_gram"),
        # "a b" again: 2 characters of 9.
        ("a b a b c", {"max_repeated_grams": [[2, 0.23]]}, None),
        ("a b a b c", {"max_repeated_grams": [[2, 0.22]]}, "repeated_2_grams"),
        ("", {}, "empty"),
        ("one", {"max_top_grams": [[2, 0]], "max_repeated_grams": [[5, 0]]}, None),
    ],
)
def test_gopher_repetition(text: str, parameters: dict[str, Any], rule: str | None) -> None:
    assert rule_of(apply("gopher_repetition", text, **{**OFF, **parameters})) == rule


def test_ordinary_prose_does_not_repeat_itself_and_boilerplate_does() -> None:
    assert rule_of(apply("gopher_repetition", prose(200))) is None
    assert rule_of(apply("gopher_repetition", prose(60) + "\n" + " ".join([prose(20)] * 3))) == "repeated_5_grams"
    assert rule_of(apply("gopher_repetition", prose(20) + " read more" * 20)) == "top_2_gram"


LINE = "this line has more than thirty characters in it"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{LINE} one.\n{LINE} two", None),
        ("\n".join(f"{LINE} {word}" for word in WORDS[:9]) + f"\n{LINE}।", "ended_lines"),
        ("\n".join(f"{LINE} {word}" for word in WORDS[:7]) + f"\n{LINE}।", None),
        ("short.\nshort two.\n" + LINE, None),
        ("short.\nshort two.\nshort three.\n" + LINE, "short_lines"),
        (f"{LINE}.\n{LINE}.", "duplicate_line_characters"),
        ("\n".join(f"{word * 6}, {word * 5}." for word in WORDS[:9]), None),
        ("\n".join(f"{word * 7}." for word in WORDS[:9]), "newlines_per_word"),
        (" \n ", "empty"),
    ],
)
def test_fineweb_quality(text: str, rule: str | None) -> None:
    assert rule_of(apply("fineweb_quality", text)) == rule


def test_c4_keeps_sentences_and_drops_pages() -> None:
    good = "\n".join(f"This is sentence number {word}." for word in WORDS[:5])
    page = (
        f"Home | About\n{good}\nPlease enable JavaScript now.\nToo short.\nWe use cookies on this page.\nIt goes on..."
    )
    assert text_of(apply("c4_quality", page)) == good
    assert text_of(apply("c4_quality", good.replace("sentence", "sentence [12][edit]"))) == good.replace(
        "sentence", "sentence "
    )
    assert rule_of(apply("c4_quality", "\n".join(good.split("\n")[:4]))) == "too_few_sentences"
    assert rule_of(apply("c4_quality", good + "\nLorem ipsum dolor sit amet.")) == "lorem_ipsum"
    assert rule_of(apply("c4_quality", good + "\nif (x) { return this one.")) == "curly_bracket"
    assert rule_of(apply("c4_quality", good + "\nif (x) { return this one.", drop_curly_brackets=False)) is None
    long_word = good + "\nThis has a " + "x" * 1001 + "."
    assert text_of(apply("c4_quality", long_word)) == good


CODE = "def area_of_rectangle(width, height):\n    return width * height  # in pixels, as the caller expects them\n\n\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (CODE * 2, None),
        ("x" * 100, "too_few_characters"),
        (CODE * 2000, "too_many_characters"),
        ("ab, cdefghijkl\n" * 20, "low_longest_line"),
        (CODE + "x = '" + "ab " * 400 + "'", "high_longest_line"),
        ("abcdefghij klmnopqrstuvwxyz " * 9 + "a" * 40, "low_special_characters"),
        (
            "((a)) [[bcdefghijklmnop]] {{}} !! ++ -- == << >> ;; ,, .. // ** && || ^^ ~~ @@ ## $$ %% :: ??" * 2,
            "high_special_characters",
        ),
        ("ab, cd, ef, gh, " * 20, "low_token_length_deviation"),
    ],
)
def test_code_quality(text: str, rule: str | None) -> None:
    expected = rule.removeprefix("low_") if rule == "low_token_length_deviation" else rule
    assert rule_of(apply("code_quality", text)) == expected


def test_generated_code_is_dropped_on_demand() -> None:
    text = "# Automatically generated by a tool\n" + CODE * 2
    assert rule_of(apply("code_quality", text)) is None
    assert rule_of(apply("code_quality", text, drop_generated=True)) == "generated"
