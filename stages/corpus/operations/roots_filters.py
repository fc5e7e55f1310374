"""ROOTS' filters for web pages, with parameters for each language (arXiv 2303.03915, section 3.3).

`roots_modifiers` cleans words, as ROOTS did first; `roots_quality` decides by eight statistics. Both read their
parameters from a table: `conf/corpus/quality/roots.yaml` or another one, with changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal

from stages.corpus.languages import canonical_code, quality_code
from stages.corpus.ngram_model import NgramModel
from stages.corpus.operations.operation import Apply, Check, Draft, Operation, at_least, at_most, checked
from stages.corpus.operations.roots_parameters import DEFAULT, RootsParameters, RootsTable
from stages.corpus.operations.text_repair import changed
from stages.corpus.operations.word_lists import WordList, stop_words

Statistic = tuple[str, float | None, float | None, Callable[[], float]]  # rule, minimum, maximum, measure


class RootsTabled(Operation):
    """An operation with parameters for each language."""

    parameters: RootsTable = RootsTable()
    language: str = ""  # of the parameters; empty: that of the document

    def lookup(self) -> Callable[[Draft], tuple[str, RootsParameters]]:
        """A function that gives the code of a draft's language and its parameters."""
        languages = self.parameters.languages()

        def numbers(draft: Draft) -> tuple[str, RootsParameters]:
            code = quality_code(canonical_code(self.language or draft.language))
            return code, languages.get(code, languages[DEFAULT])

        return numbers


class RootsModifiers(RootsTabled):
    """Makes white space uniform; removes control characters, words that are parts of addresses, and overlong words."""

    version: ClassVar[str] = "2"

    operation: Literal["roots_modifiers"] = "roots_modifiers"
    keep_lines: bool = True  # ROOTS replaced newlines by spaces as well

    def function(self) -> Apply:
        from stages.corpus.statistics.roots_statistics import uniform, without_words

        of = self.lookup()

        def apply(draft: Draft) -> Draft:
            _, numbers = of(draft)
            text = uniform(draft.text, keep_lines=self.keep_lines)
            if numbers.longest_word is not None or numbers.unwanted_in_words:
                text = without_words(text, numbers.unwanted_in_words, numbers.longest_word).strip()
            return changed(draft, text)

        return apply


class RootsQuality(RootsTabled):
    """Drops a document by the first of ROOTS' eight statistics that is outside of the bounds for its language.

    The statistics are the number of words, character repetition, word repetition, special characters, stop words,
    flagged words, language score and perplexity. A statistic without its list or model is skipped, as in ROOTS. The
    known stop words of languages without an entry in the table are not used: the default bound fits no such list.
    """

    version: ClassVar[str] = "3"

    operation: Literal["roots_quality"] = "roots_quality"
    language_score: Literal["roots", "cld2", "off"] = "roots"  # the detector; ROOTS' thresholds are fastText's
    stop_words: Mapping[str, WordList] = {}  # by language, instead of the known ones
    flagged_words: Mapping[str, WordList] = {}  # by language; none are shipped
    language_models: Mapping[str, NgramModel] = {}  # by language: the steps that train them

    def function(self) -> Apply:
        from stages.corpus.statistics import roots_statistics as roots

        of, score, tuned = self.lookup(), self._score(), self.parameters.languages().keys()
        perplexities = {code: model.perplexity() for code, model in self.language_models.items()}

        def statistics(draft: Draft) -> Iterator[Statistic]:
            code, numbers = of(draft)
            text, joined_by = draft.text, numbers.neighbours_joined_by
            words = roots.words(text, code)
            yield "too_few_words", numbers.min_words, None, lambda: len(words)
            yield "too_many_words", None, numbers.max_words, lambda: len(words)
            repetition = partial(roots.character_repetition, text, numbers.character_ngram)
            yield "character_repetition", None, numbers.max_character_repetition, repetition
            lowered = [word.lower() for word in words]
            repetition = partial(roots.word_repetition, lowered, numbers.word_ngram)
            yield "word_repetition", None, numbers.max_word_repetition, repetition
            special = partial(roots.special_character_ratio, text)
            yield "special_characters", None, numbers.max_special_characters, special
            given = self.stop_words.get(code)
            if listed := stop_words(code, given) if given or code in tuned else None:
                ratio = partial(roots.listed_ratio, lowered, listed, joined_by)
                yield "stop_words", numbers.min_stop_words, None, ratio
            if code in self.flagged_words:
                flagged = partial(roots.listed_ratio, lowered, stop_words(code, self.flagged_words[code]), joined_by)
                yield "flagged_words", None, numbers.max_flagged_words, flagged
            if score:
                yield "language_score", numbers.min_language_score, None, partial(score, code, text)
            if code in perplexities:
                yield "perplexity", None, numbers.max_perplexity, partial(perplexities[code], text)

        return lambda draft: checked(draft, _checks(statistics(draft)))

    def _score(self) -> Callable[[str, str], float] | None:
        """A function that scores a text in a language; a language that the detector does not know scores 1."""
        if self.language_score == "off":
            return None
        from stages.corpus.statistics.language_detection import detector, knows

        detect, backend = detector(self.language_score), self.language_score

        def score(code: str, text: str) -> float:
            if not knows(backend, canonical_code(code)):
                return 1.0
            best = detect(text)[0]
            return best.share if quality_code(best.language) == code else 0.0

        return score


def _checks(statistics: Iterator[Statistic]) -> Iterator[Check]:
    for rule, minimum, maximum, measure in statistics:
        if minimum is None and maximum is None:
            continue
        value = measure()
        if minimum is not None:
            yield at_least(rule, value, minimum)
        if maximum is not None:
            yield at_most(rule, value, maximum)
