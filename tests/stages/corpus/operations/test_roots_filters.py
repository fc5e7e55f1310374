"""ROOTS' parameters are the published ones, and each of its statistics decides by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.operations.roots_filters import RootsQuality
from stages.corpus.operations.roots_parameters import RootsTable
from stages.corpus.operations.word_lists import stop_words
from tests.stages.corpus.examples import declaration, read_lines
from tests.stages.corpus.operations.support import apply, made, rule_of, text_of
from tests.support import test_data

# min words, longest word, character and word repetition, special, stop, flagged, language score, perplexity
PUBLISHED = {
    "default": (10, None, 0.2, 0.3, 0.4, 0.1, 0.1, 0.70, 10000),
    "ar": (20, 25, 0.20, 0.34, 0.30, 0.07, 0.03, 0.81, 2300),
    "bn": (33, 20, 0.13, 0.21, 0.45, 0.002, 0.001, 0.95, 2000),
    "ca": (15, 20, 0.2, 0.4, 0.25, 0.25, 0.1, 0.8, 2500),
    "en": (20, 25, 0.106, 0.19, 0.4, 0.3, 0.01, 0.80, 1500),
    "es": (16, 25, 0.14, 0.25, 0.34, 0.4, 0.01, 0.8, 1300),
    "eu": (8, 28, 0.20, 0.40, 0.31, 0.05, 0.1, 0.70, 3000),
    "fr": (13, 45, 0.14, 0.13, 0.34, 0.27, 0.008, 0.8, 1770),
    "hi": (38, 25, 0.18, 0.47, 0.45, 0.01, 0.005, 0.90, 1517),
    "id": (15, 30, 0.15, 0.20, 0.34, 0.15, 0.01, 0.7, 5000),
    "pt": (19, 19, 0.25, 0.98, 0.35, 0.2, 0.007, 0.6, 3038),
    "ur": (25, 20, 0.19, 0.5, 0.25, 0.01, 0.025, 0.90, 1495),
    "vi": (30, 25, 0.15, 0.20, 0.34, 0.08, 0.005, 0.90, 1600),
    "zh": (1, None, 0.2, 0.96, 0.3, 0.1691, 0.001, 0.85, 2095),
}


def test_the_table_is_the_published_one() -> None:
    table = RootsTable().languages()
    assert table.keys() == PUBLISHED.keys()
    for code, numbers in PUBLISHED.items():
        one = table[code]
        assert numbers == (
            one.min_words, one.longest_word, one.max_character_repetition, one.max_word_repetition,
            one.max_special_characters, one.min_stop_words, one.max_flagged_words, one.min_language_score,
            one.max_perplexity,
        ), code  # fmt: skip
        assert one.max_words == (1_000_000 if code == "zh" else 100_000)
        assert one.character_ngram == (3 if code == "zh" else 10)
        assert one.word_ngram == (7 if code == "ur" else 5)
        assert one.unwanted_in_words == (() if code in ("default", "zh") else ("http", "www", ".com", "href", "//"))
        assert one.neighbours_joined_by == {"vi": " ", "zh": ""}.get(code)


def test_a_language_without_parameters_has_the_default() -> None:
    of, table = RootsQuality().lookup(), RootsTable().languages()
    for language, code in (("zhs", "zh"), ("zht", "zh"), ("pt_BR", "pt"), ("yo", "default"), ("", "default")):
        assert of(Draft("", path="p", language=language))[1] == table[code]


# --- the modifiers ------------------------------------------------------------------------------------------------


def test_modifiers_clean_words_by_the_language() -> None:
    text = (
        "See\u00a0http://x.y/z or (www.site.com) now\x07,\n"
        + "a" * 26
        + " "
        + "b" * 25
        + "!!! ???"
        + "." * 30
        + "\tend"
    )
    cleaned = "See or now,\n" + "b" * 25 + "!!! end"
    assert text_of(apply("roots_modifiers", text, {"language": "en"})) == cleaned
    assert text_of(apply("roots_modifiers", text, {"language": "en"}, keep_lines=False)) == cleaned.replace("\n", " ")


def test_modifiers_that_a_language_has_not_are_off() -> None:
    text = "long " + "x" * 200 + " http://x.y"
    assert text_of(apply("roots_modifiers", text, {"language": "zhs"})) == text
    assert text_of(apply("roots_modifiers", text, {"language": "yo"})) == text
    assert text_of(apply("roots_modifiers", text, {"language": "fr"})) == "long"


# --- the filter ---------------------------------------------------------------------------------------------------

PROSE = (
    "When the old bridge over the river was closed in the spring, nobody in the village had thought about what it "
    "would be like to walk for more than an hour to the market on the other side, but that is how they met."
)
QUIET = {"language_score": "off"}


def one_rule(**numbers: float | str | None) -> dict[str, Any]:
    """Parameters with every rule off but the given one."""
    off = dict.fromkeys(
        ("min_words", "max_words", "max_character_repetition", "max_word_repetition", "max_special_characters",
         "min_stop_words", "max_flagged_words", "min_language_score", "max_perplexity"),
    )  # fmt: skip
    changes = {code: {**off, **numbers} for code in ("default", "en", "fr", "vi", "zh")}
    return {"parameters": {"changes": changes}, **QUIET}


@pytest.mark.parametrize("language", ["en", "", "tum"])
def test_prose_is_kept(language: str) -> None:
    assert rule_of(apply("roots_quality", PROSE, {"language": language}, **QUIET)) is None


@pytest.mark.parametrize(
    ("text", "numbers", "rule"),
    [
        ("a b c d", {"min_words": 4}, None),
        ("a b c !", {"min_words": 4}, "too_few_words"),
        ("a b c d", {"max_words": 3}, "too_many_words"),
        ("abcabcabcxyz", {"max_character_repetition": 0.5, "character_ngram": 3}, None),
        ("abcabcabcxyz", {"max_character_repetition": 0.49, "character_ngram": 3}, "character_repetition"),
        ("A b a B c", {"max_word_repetition": 0.5, "word_ngram": 2}, None),
        ("A b a B c", {"max_word_repetition": 0.49, "word_ngram": 2}, "word_repetition"),
        ("ab 1!😀", {"max_special_characters": 0.67}, None),
        ("ab 1!😀", {"max_special_characters": 0.66}, "special_characters"),
        ("The sky, of", {"min_stop_words": 0.66}, None),
        ("The sky, of", {"min_stop_words": 0.67}, "stop_words"),
    ],
)
def test_each_rule_decides_at_its_threshold(text: str, numbers: dict[str, Any], rule: str | None) -> None:
    assert rule_of(apply("roots_quality", text, {"language": "en"}, **one_rule(**numbers))) == rule


def test_flagged_words_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "flagged.txt").write_text("# a word a line\nBridge\n")
    given = {"flagged_words": {"en": {"path": tmp_path / "flagged.txt"}}}
    found = apply("roots_quality", PROSE, {"language": "en"}, **one_rule(max_flagged_words=0.01), **given)
    assert isinstance(found, Drop)
    assert (found.rule, found.threshold) == ("flagged_words", 0.01)
    assert found.value == pytest.approx(1 / len(PROSE.split()))
    assert (
        rule_of(apply("roots_quality", PROSE, {"language": "fr"}, **one_rule(max_flagged_words=0.01), **given)) is None
    )


def test_stop_words_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "yo.txt").write_text("ni\nti\n")
    given = {"stop_words": {"tum": {"path": tmp_path / "yo.txt"}}}
    rules = one_rule(min_stop_words=0.5)
    assert rule_of(apply("roots_quality", "ni ti a b", {"language": "tum"}, **rules, **given)) is None
    assert rule_of(apply("roots_quality", "ni a b c", {"language": "tum"}, **rules, **given)) == "stop_words"
    assert rule_of(apply("roots_quality", "ni a b c", {"language": "tum"}, **rules)) is None, "none are known: left out"


def test_stop_words_are_not_asked_of_languages_without_parameters() -> None:
    """The default bound does not fit every list: most good texts have too few of the words in Zulu's short list."""
    zulu = (
        "Yayiyodwa ibhasi edolobheni. Yayinkulu futhi iluhlaza okwesibhakabhaka. Yayinomsindo omkhulu kakhulu impela."
    )
    assert stop_words("zu")
    assert rule_of(apply("roots_quality", zulu, {"language": "zu"}, **QUIET)) is None
    own = {"parameters": {"changes": {"zu": {"min_stop_words": 0.3}}}}
    assert rule_of(apply("roots_quality", zulu, {"language": "zu"}, **QUIET, **own)) == "stop_words"


def test_stories_in_african_languages_are_kept() -> None:
    kept: dict[str, list[bool]] = {"sw": [], "zu": [], "xh": [], "lg": []}
    operation = made("roots_quality").function()
    for row in read_lines(test_data("multilingual", "african-storybook.jsonl.gz")):
        if row["lang"] in kept and len(row["text"]) > 150:
            kept[row["lang"]].append(isinstance(operation(Draft(row["text"], "p", language=row["lang"])), Draft))
    for language, found in kept.items():
        assert len(found) > 30
        assert sum(found) / len(found) > 0.9, language


def test_the_language_score_is_fasttexts() -> None:
    french = "Le comité se réunira de nouveau la semaine prochaine pour discuter de ce qu'il faut faire du vieux pont."
    scored = one_rule(min_language_score=0.8) | {"language_score": "roots"}
    assert rule_of(apply("roots_quality", french, {"language": "fr"}, **scored)) is None
    assert apply("roots_quality", french, {"language": "en"}, **scored) == Drop("language_score", 0.0, 0.8)
    for code in ("zu", "sw"):
        assert rule_of(apply("roots_quality", french, {"language": code}, **scored)) is None, "not known well enough"


def test_statistics_of_chinese_are_of_words() -> None:
    """By hand: six words (我们 是 中国人 你们 是 中国人), five pairs of which one occurs twice, four stop words."""
    text = "我们是中国人，你们是中国人。"
    for rules, rule in (
        ({"min_words": 6}, None),
        ({"min_words": 7}, "too_few_words"),
        ({"max_word_repetition": 0.4, "word_ngram": 2}, None),
        ({"max_word_repetition": 0.39, "word_ngram": 2}, "word_repetition"),
        ({"min_stop_words": 0.66}, None),
        ({"min_stop_words": 0.67}, "stop_words"),
        ({"max_special_characters": 1 / 7}, None),
        ({"max_special_characters": 0.14}, "special_characters"),
    ):
        assert rule_of(apply("roots_quality", text, {"language": "zhs"}, **one_rule(**rules))) == rule, rules


@pytest.mark.parametrize(("code", "name"), [("zhs", "cmn_hans"), ("zht", "cmn_hant")])
def test_chinese_prose_is_within_the_bounds_of_roots(code: str, name: str) -> None:
    assert rule_of(apply("roots_quality", declaration(name), {"language": code})) is None


def test_chinese_and_vietnamese_stop_words_are_found_in_pairs() -> None:
    assert "我们" in stop_words("zhs")
    vietnamese = stop_words("vi")
    assert any(" " in word for word in vietnamese)
    pair = sorted(word for word in vietnamese if word.count(" ") == 1)[0]
    off = {"min_stop_words": 0.3}
    text = f"xyz {pair.title()} xyz"
    assert rule_of(apply("roots_quality", text, {"language": "vi"}, **one_rule(**off))) == "stop_words"
    joined = one_rule(**off, neighbours_joined_by=" ")
    with_singles = sum(word in vietnamese for word in pair.split())
    assert with_singles <= 1
    assert rule_of(apply("roots_quality", pair, {"language": "vi"}, **joined)) is None


def test_statistics_are_measured_in_the_order_of_roots_and_the_first_decides() -> None:
    found = apply("roots_quality", "z" * 100, {"language": "en"})
    assert found == Drop("too_few_words", 1, 20)


def test_a_table_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("default:\nen: {min_words: 3}\n")
    operation = made("roots_quality", parameters=str(tmp_path / "mine.yaml"))
    assert isinstance(operation, RootsQuality)
    assert operation.parameters.languages()["en"].min_words == 3
    assert operation.parameters.languages()["default"] == RootsTable().languages()["default"]
    for content, said in (("en: [", "is not YAML"), ("en: {}", "an entry 'default'"), ("default: {x: 1}", "x: Extra")):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match=said):
            made("roots_quality", parameters=str(tmp_path / "bad.yaml"))


def test_changes_replace_what_they_name_and_count_as_content(tmp_path: Path) -> None:
    changed = RootsTable(changes={"en": {"min_words": 10}, "yo": {"min_stop_words": None}})
    english, yoruba = changed.languages()["en"], changed.languages()["yo"]
    assert (english.min_words, english.max_word_repetition) == (10, 0.19)
    assert (yoruba.min_words, yoruba.min_stop_words) == (10, None)
    digest = RootsTable().digest(Path.read_text)
    assert changed.digest(Path.read_text) != digest, "10 is the default of the field, not of English"
    (tmp_path / "same.yaml").write_text((Path(__file__).parents[4] / "conf/corpus/quality/roots.yaml").read_text())
    assert RootsTable(table=str(tmp_path / "same.yaml")).digest(Path.read_text) == digest
