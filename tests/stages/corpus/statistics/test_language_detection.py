"""The language of a text: what detectors find, and the share of it."""

from __future__ import annotations

import pytest

from stages.corpus.languages import LANGUAGES, canonical_code
from stages.corpus.statistics.language_detection import detector, near
from tests.stages.corpus.examples import ENGLISH, HINDI, SAMPLE_AND_FULL, declarations


def test_the_share_is_of_characters_whatever_they_take_in_utf_8() -> None:
    (first, second) = detector("cld2")(ENGLISH * 3 + "\n" + HINDI * 4)
    assert {first.language, second.language} == {"en", "hi"}
    english = len(ENGLISH) * 3 / (len(ENGLISH) * 3 + len(HINDI) * 4)
    assert dict([first, second])["en"] == pytest.approx(english, abs=0.1)


# The UDHR's code of a text in a language of ROOTS, where it is not canonical_code's.
UDHR_CODES = {"cmn_hans": "zhs", "cmn_hant": "zht"}


UDHR_LEFT_OUT = ("cmn_hans_", "vie_han", "lua")  # dialects, Vietnamese in Han characters, Luba: not Lua


@SAMPLE_AND_FULL
def test_paragraphs_of_the_udhr_are_distinguished(size: str) -> None:
    detect = detector("cld2")
    hits: dict[str, list[bool]] = {}
    for row in declarations(size):
        code = UDHR_CODES.get(row["code"]) or canonical_code(row["code"].split("_")[0])
        if code not in LANGUAGES or row["code"].startswith(UDHR_LEFT_OUT):
            continue
        paragraphs = [paragraph for paragraph in row["text"].split("\n") if len(paragraph) >= 60]
        hits.setdefault(code, []).extend(detect(paragraph)[0].language == code for paragraph in paragraphs)
    assert len(hits) == 41
    assert sum(sum(found) / len(found) for found in hits.values()) / len(hits) >= 0.97


@SAMPLE_AND_FULL
@pytest.mark.parametrize(("code", "name", "least"), [("bm", "bam", 0.85), ("fon", "fon", 0.95)])
def test_languages_that_no_detector_knows_are_recognised_by_letters_and_small_words(
    code: str, name: str, least: float, size: str
) -> None:
    """Other languages with the same letters (Ga, Ewe, Susu, Dendi, ...) are not mistaken for it, except Maninka and
    Dyula."""
    detect = detector("cld2")
    found, others, kept = 0, 0, []
    for row in declarations(size):
        paragraphs = [text for text in row["text"].split("\n") if len(text) >= 60 and ("ɔ" in text or "ɛ" in text)]
        if row["code"] == name:
            kept = [detect(text)[0].language == code for text in paragraphs]
        elif row["code"] not in ("emk", "dyu"):
            others += len(paragraphs)
            found += sum(detect(text)[0].language == code for text in paragraphs)
    assert sum(kept) >= least * len(kept)
    assert others > (1500 if size == "full" else 150)
    assert found <= 0.015 * others


def test_kikuyu_is_not_kamba() -> None:
    kikuyu = "Andũ othe maciaragwo marĩ na wĩyathi na maiganaine harĩ gĩtĩĩo na kĩhooto, na nĩmaheetwo ũmenyo."
    kamba = "Andũ onthe nĩmasyaawa me athasye na maianene, nĩmanengetwe kĩlĩko na wasya wa ngoo, na maĩlwa nĩ kũtwĩa."
    detect = detector("cld2")
    assert detect(kikuyu)[0].language == "ki"
    assert detect(kikuyu.replace("ĩ", "\u1fd6").replace("ũ", "\u1fe6"))[0].language == "ki"
    assert detect(kamba)[0].language != "ki"


def test_languages_that_are_not_distinguished_are_near() -> None:
    assert near("id", "ms")
    assert near("xh", "zu")
    assert near("en", "en")
    assert not near("en", "fr")
