"""ROOTS' statistics of real texts in each of its thirteen languages, against values worked out word by word here.

What is here is written from the description of ROOTS' filters, with nothing of what it tests but its table, its special
characters, and the words of Chinese.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from stages.corpus.languages import TUNED
from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.operations.roots_parameters import RootsTable
from stages.corpus.operations.word_lists import stop_words
from stages.corpus.statistics.roots_statistics import special_characters
from stages.corpus.statistics.segmentation import segments
from tests.stages.corpus.examples import declarations
from tests.stages.corpus.operations.support import apply

CHARACTERS = 4000  # of each declaration
# The codes of the declarations of human rights.
NAMES = {
    "ar": "arb", "bn": "ben", "ca": "cat", "en": "eng", "es": "spa", "eu": "eus", "fr": "fra", "hi": "hin", "id": "ind",
    "pt": "por_BR", "ur": "urd", "vi": "vie", "zh": "cmn_hans",
}  # fmt: skip
OFF = dict.fromkeys(
    ("min_words", "max_words", "max_character_repetition", "max_word_repetition", "max_special_characters",
     "min_stop_words", "max_flagged_words", "min_language_score", "max_perplexity"),
)  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    codes = {code: language for language, code in NAMES.items()}
    return {codes[row["code"]]: row["text"][:CHARACTERS] for row in declarations() if row["code"] in codes}


def words_of(text: str, language: str) -> list[str]:
    special = "".join(special_characters())
    parts = segments(text, "zh") if language == "zh" else text.split()
    return [word for word in (part.strip(special) for part in parts) if word]


def character_repetition(text: str, length: int) -> float:
    counts = sorted(Counter(text[at : at + length] for at in range(len(text) - length + 1)).values(), reverse=True)
    most = min(int(math.sqrt(len(counts))), len(counts) - counts.count(1))
    return sum(counts[:most]) / sum(counts)


def word_repetition(words: list[str], length: int) -> float:
    grams = Counter(" ".join(words[at : at + length]).lower() for at in range(len(words) - length + 1))
    return sum(count for count in grams.values() if count > 1) / sum(grams.values())


def listed(words: list[str], language: str, wanted: Collection[str]) -> float:
    lowered = [word.lower() for word in words]
    if language in ("zh", "vi"):  # neighbours as one word, too
        joint = "" if language == "zh" else " "
        lowered += [joint.join(lowered[at : at + 2]) for at in range(len(lowered) - 1)]
    return min(sum(word in wanted for word in lowered) / len(words), 1.0)


def found(text: str, language: str, flagged_file: str | None = None, **rule: float) -> Drop:
    """The drop by only this rule, at a bound that no text meets."""
    flagged = {"flagged_words": {language: {"path": flagged_file}}} if flagged_file else {}
    changes = {"parameters": {"changes": {language: {**OFF, **rule}}}, "language_score": "off"}
    dropped = apply("roots_quality", text, {"language": language}, **changes, **flagged)
    assert isinstance(dropped, Drop)
    return dropped


@pytest.mark.parametrize("language", TUNED)
def test_each_statistic_is_that_of_the_description(language: str, texts: dict[str, str], tmp_path: Path) -> None:
    text, numbers = texts[language], RootsTable().languages()[language]
    words = words_of(text, language)
    assert len(words) > 200
    common = [word for word, _ in Counter(word.lower() for word in words).most_common(9)]
    (tmp_path / "flagged.txt").write_text("\n".join(common[3:]))
    special = sum(character in special_characters() for character in text) / len(text)
    flagged_file = str(tmp_path / "flagged.txt")
    assert found(text, language, min_words=10**6).value == len(words)
    for dropped, value in (
        (found(text, language, max_character_repetition=0.0), character_repetition(text, numbers.character_ngram)),
        (found(text, language, max_special_characters=0.0), special),
        (found(text, language, min_stop_words=1.0), listed(words, language, stop_words(language))),
        (found(text, language, max_flagged_words=0.0, flagged_file=flagged_file), listed(words, language, common[3:])),
    ):
        assert dropped.value == pytest.approx(value), dropped.rule
    repeated = " ".join(words[:40] * 2 + words) if language != "zh" else text[:60] * 2 + text
    expected = word_repetition(words_of(repeated, language), numbers.word_ngram)
    assert found(repeated, language, max_word_repetition=0.0).value == pytest.approx(expected)


@pytest.mark.parametrize("language", TUNED)
def test_the_published_bound_decides(language: str, texts: dict[str, str]) -> None:
    """A text is kept if a bound of the table equals its value, and dropped if the bound is stricter."""
    text = texts[language]
    value = found(text, language, max_special_characters=0.0).value
    for bound, rule in ((value, None), (float(value) - 1e-9, "special_characters")):
        changes = {"parameters": {"changes": {language: {**OFF, "max_special_characters": bound}}}}
        decided = apply("roots_quality", text, {"language": language}, language_score="off", **changes)
        assert (decided.rule if isinstance(decided, Drop) else None) == rule
        assert isinstance(decided, Draft) == (rule is None)
