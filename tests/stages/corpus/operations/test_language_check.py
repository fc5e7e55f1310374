"""The language of a document: detected and compared with the declared one; ROOTS' languages and their codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.corpus.languages import LANGUAGES, NATURAL, OTHERS, PROGRAMMING, canonical_code
from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.statistics.language_detection import Backend, detector, knows
from tests.stages.corpus.examples import (
    ENGLISH,
    FRENCH,
    HINDI,
    declaration,
    declarations,
    ingest,
    prose,
    read_lines,
    write_lines,
)
from tests.stages.corpus.operations.support import apply, made, rule_of
from tests.support import test_data


def test_roots_has_59_languages() -> None:
    assert (len(NATURAL), len(PROGRAMMING), len(LANGUAGES)) == (46, 13, 59)
    assert {language.family for language in NATURAL} == {
        "Niger-Congo", "Indo-European", "Dravidian", "Sino-Tibetan", "Afro-Asiatic", "Austro-Asiatic",
        "Austronesian", "Basque",
    }  # fmt: skip
    assert sum(language.family == "Niger-Congo" for language in NATURAL) == 22
    tuned = {language.code for language in NATURAL if language.has_quality_parameters}
    assert tuned == {"ar", "bn", "ca", "en", "es", "eu", "fr", "hi", "id", "pt", "ur", "vi", "zhs", "zht"}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("pt_BR", "pt"), ("zh-Hant-TW", "zht"), ("zh_CN", "zhs"), ("ZH", "zhs"), ("en", "en"), ("nya_chechewa", "ny"),
        ("Python", "python"), ("cpp", "c++"), ("xx-yy", "xx-yy"), ("", ""), ("de", "de"), ("aka-asante", "ak"),
        ("ja_JP", "ja"), ("jpn", "ja"), ("de-AT", "de"), ("iw", "he"), ("nb_NO", "no"), ("sr-Latn-RS", "sr"),
        ("ger", "de"),
    ],
)  # fmt: skip
def test_tags_in_the_wild_have_a_code(tag: str, code: str) -> None:
    assert canonical_code(tag) == code


@pytest.mark.parametrize(
    ("text", "declared", "rule"),
    [
        (ENGLISH, "en", None),
        (ENGLISH, "en_GB", None),
        (ENGLISH, "fr", "wrong_language"),
        (ENGLISH * 2 + HINDI, "hi", "wrong_language"),
        (HINDI * 2 + ENGLISH, "hi", "language_share"),
        ("def f(x): return x", "python", None),
        ("a language that is not detected", "ki", "wrong_language"),
    ],
)
@pytest.mark.parametrize("name", ["cld2"])
def test_a_declared_language_is_checked(name: str, text: str, declared: str, rule: str | None) -> None:
    assert rule_of(apply("language", text, {"language": declared}, detector=name)) == rule


OTHER_TEXTS = {
    "ja": "春の港に朝の船が着くと、市場の人々は魚の箱を並べ、値段を書いた札を立てる。" * 2,
    "de": "Die Fähre verlässt am Morgen den nördlichen Steg und kommt kurz nach Mittag zurück. ",
    "ru": "Утренний паром уходит от северного причала и возвращается чуть позже полудня, если ветер не меняется. ",
    "ko": "아침 배가 북쪽 부두를 떠나 정오가 조금 지나서 돌아온다. 바람이 바뀌면 항만장은 수로를 닫는다. ",
    "el": "Το πρωινό πλοίο φεύγει από τη βόρεια προβλήτα και επιστρέφει λίγο μετά το μεσημέρι. ",
    "hr": "Jutarnji trajekt odlazi sa sjevernog pristaništa i vraća se malo poslije podneva, osim ako puše vjetar. ",
}


@pytest.mark.parametrize(
    ("name", "code"),
    [("cld2", code) for code in OTHER_TEXTS] + [("roots", code) for code in OTHER_TEXTS if code != "hr"],
)
def test_languages_outside_of_roots_are_checked_too(name: str, code: str) -> None:
    kept = apply("language", OTHER_TEXTS[code], {"language": code}, detector=name)
    assert isinstance(kept, Draft)
    assert not kept.counts
    for other in OTHER_TEXTS.keys() - {code}:
        assert rule_of(apply("language", OTHER_TEXTS[other], {"language": code}, detector=name)) == "wrong_language"
    assert rule_of(apply("language", ENGLISH, {"language": code}, detector=name)) == "wrong_language"


@pytest.mark.parametrize("name", ["cld2", "roots"])
def test_every_language_that_is_said_to_be_known_is_found(name: Backend) -> None:
    function = made("language", detector=name).function()
    unusual = {"azj_cyrl", "jav_java", "san_gran", "uig_latn", "khk_mong", "uzn_cyrl"}  # scripts that are rarely used
    checked = set()
    for row in declarations("full"):
        code = canonical_code(row["code"])
        if code in OTHERS and knows(name, code) and row["code"] not in unusual:
            assert isinstance(function(Draft(row["text"], path="p", language=code)), Draft), code
            assert isinstance(function(Draft(ENGLISH * 3, path="p", language=code)), Drop), code
            checked.add(code)
    assert len(checked) >= {"cld2": 95, "roots": 55}[name]


def test_languages_that_pass_unchecked_are_counted_and_named(tmp_path: Path) -> None:
    rows = [{"text": f"{ENGLISH} {prose(number)}", "language": "en" if number % 2 else "tlh"} for number in range(20)]
    rows += [{"text": f"def f(x): return {prose(number)}", "language": "python"} for number in range(5)]
    corpus, context = ingest(
        tmp_path, write_lines(tmp_path / "in.jsonl", rows), draw=True, validation_fraction=0,
        source={"operations": [{"operation": "language", "minimum": 0.3}]},
    )  # fmt: skip
    assert corpus.manifest.unchecked_languages() == {"tlh": 10}
    assert "warning: the declared language of 10 documents was not checked: tlh (10)" in context.notes
    card = (corpus.path / "pages" / "card.md").read_text()
    assert (
        "## Declared languages that were not checked\n\n| language | documents |\n| --- | ---: |\n| tlh | 10 |" in card
    )


def test_thresholds_may_differ_by_language() -> None:
    mixed = HINDI * 2 + ENGLISH
    assert rule_of(apply("language", mixed, {"language": "hi"}, minimums={"hi": 0.3})) is None
    assert rule_of(apply("language", mixed, {"language": "hi"}, minimums={"en": 0.3})) == "language_share"


def test_the_language_found_can_be_set() -> None:
    found = apply("language", FRENCH, {"language": "en"}, declared="ignore")
    assert isinstance(found, Draft)
    assert found.language == "fr"
    german = "Der Ausschuss wird nächste Woche wieder zusammentreten und über die alte Brücke beraten. "
    assert apply("language", german) == Drop("other_language", "de", "a language of the corpus")
    assert rule_of(apply("language", german, keep_others=True)) is None


def test_what_the_roots_detector_does_not_know_passes() -> None:
    assert not knows("roots", "zu")
    assert rule_of(apply("language", ENGLISH, {"language": "zu"}, detector="roots")) is None
    assert rule_of(apply("language", ENGLISH, {"language": "fr"}, detector="roots")) == "wrong_language"
    found = apply("language", FRENCH, {"language": "fr"}, detector="roots", minimum=0.9)
    assert rule_of(found) is None


def test_garbage_has_no_language() -> None:
    for text in ("", "\x00\x01", "\ud800", "12345 !!", "\x7f\x9f"):
        for name in ("cld2", "roots"):
            assert detector(name)(text)[0].share <= 1
    assert rule_of(apply("language", "", {"language": "en"})) == "wrong_language"


def english_lines(text: str) -> float:
    """The share of a page's letters in lines of only ASCII letters. For a language in another script, these lines are
    untranslated. No detector is involved."""
    lines = [[character for character in line if character.isalpha()] for line in text.split("\n")]
    total = sum(map(len, lines))
    plain = sum(len(letters) for letters in lines if sum(map(str.isascii, letters)) >= 0.95 * len(letters))
    return plain / max(total, 1)


def test_pages_that_are_really_english_are_found_and_no_others() -> None:
    """Pages of languages for which most pages are untranslated or partly translated."""
    function = made("language").function()
    flagged: dict[str, list[bool]] = {"english": [], "translated": []}
    for row in read_lines(test_data("messy", "declared-language-mostly-english.jsonl.gz")):
        code, share = canonical_code(row["declared_lang"]), english_lines(row["text"])
        if code in LANGUAGES and not 0.2 < share < 0.4:  # two pages are hard to classify
            found = function(Draft(row["text"], path="p", language=code))
            flagged["english" if share >= 0.4 else "translated"].append(isinstance(found, Drop))
    assert {kind: len(found) for kind, found in flagged.items()} == {"english": 258, "translated": 19}
    assert sum(flagged["english"]) >= 0.99 * 258  # 257 of them
    assert sum(flagged["translated"]) <= 1


# Paragraphs of a manual, as a translated page holds them where nobody translated them.
MANUAL = (
    "Open the folder that contains the file and select the files that you want to copy to the other disk.",
    "The settings of the printer are kept when you restart the computer, unless you choose another profile.",
    "If the network asks for a password, type it into the field and wait until the connection is ready.",
    "You can change the size of the text in the window of the editor without changing the other windows.",
    "Before you remove the disk, close all programs that still use one of its files, and wait a moment.",
)
TRANSLATED = ("arb", "ben", "fra", "hin", "spa", "swh", "tam", "vie", "yor", "zul")


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_page_with_an_english_part_is_dropped_and_a_translated_one_kept(name: str) -> None:
    function, code = made("language").function(), canonical_code(name)
    own = [paragraph for paragraph in declaration(name).split("\n") if len(paragraph) >= 60]
    for start in range(0, len(own) - 3, 3):
        page = own[start : start + 3]
        for paragraphs, dropped in (([*page, *MANUAL * 3], True), ([*page, "cp -a /srv/one /srv/two"], False)):
            found = function(Draft("\n".join(paragraphs), path="p", language=code))
            assert isinstance(found, Drop) == dropped


@pytest.mark.parametrize(
    ("file", "code", "least"),
    [
        *((f"gnome-user-docs/{code}", code, 0.96) for code in ("en", "fr", "pt", "id", "es", "ca")),
        ("libreoffice-help/zh-cn", "zhs", 0.95),  # of which a third of the letters are commands and names
        ("libreoffice-help/hi", "hi", 0.97),
        ("libreoffice-help/eu", "eu", 0.95),
    ],
)
def test_pages_in_their_language_are_kept(file: str, code: str, least: float) -> None:
    function = made("language").function()
    pages = read_lines(test_data("multilingual", f"{file}.jsonl.gz"))[:250]
    kept = [isinstance(function(Draft(row["text"], path="p", language=code)), Draft) for row in pages]
    assert sum(kept) >= least * len(kept)


def test_what_is_in_no_language_takes_nothing_from_a_page() -> None:
    code = [f"-x{number:02d} --zq{number * 37}k lv/{number}qz && xg{number}" for number in range(90)]
    for language, sentence in (("fr", FRENCH), ("hi", HINDI)):
        page = "".join(f"{sentence}\n{line}\n" for line in code[:6])
        assert apply("language", page, {"language": language}, minimum=0.95) == Draft(page, "a.txt", language=language)
    buried = FRENCH + "\n".join(code)
    assert rule_of(apply("language", buried, {"language": "fr"})) is not None
