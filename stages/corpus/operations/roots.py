"""The filters that ROOTS applied to web pages, with its parameters for each language (arXiv 2303.03915, section 3.3).

`roots_modifiers` cleans words as ROOTS did first; `roots_quality` decides by eight statistics. Both take their numbers
from a table: `conf/corpus/quality/roots.yaml`, another one, or values in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from stages.artifacts.ngram import NgramModel
from stages.base import Config
from stages.corpus.languages import canonical_code, quality_code
from stages.corpus.operations.base import Apply, Draft, Drop, Operation
from stages.corpus.operations.tables import WordList, quality_table, stop_words
from stages.corpus.operations.text import changed

Ratio = Annotated[float, Field(ge=0, le=1)]
DEFAULT = "default"


class RootsParameters(Config):
    """Numbers for one language. None turns a rule off. Defaults are ROOTS' own for languages without parameters."""

    min_words: NonNegativeInt | None = 10
    max_words: PositiveInt | None = 100_000
    longest_word: PositiveInt | None = None  # characters; longer words are removed
    unwanted_in_words: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # words that hold one of these are removed
    character_ngram: PositiveInt = 10
    max_character_repetition: Ratio | None = 0.2
    word_ngram: PositiveInt = 5
    max_word_repetition: Ratio | None = 0.3
    max_special_characters: Ratio | None = 0.4
    min_stop_words: Ratio | None = 0.1
    max_flagged_words: Ratio | None = 0.1
    min_language_score: Ratio | None = 0.7
    max_perplexity: NonNegativeFloat | None = 10_000
    characters_as_words: bool = False  # for Chinese: ROOTS took the pieces of a sentencepiece model
    neighbours_joined_by: str | None = None  # pairs of words, joined so, are looked up in the lists as well


def _table(value: Any) -> Any:
    found = quality_table(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or DEFAULT not in found:
        raise ValueError(f"expected a table of parameters by language, with an entry {DEFAULT!r}")
    return found


# By name of a table in conf/corpus/quality, as the path of a YAML file, or in place.
Table = Annotated[Mapping[str, RootsParameters], BeforeValidator(_table)]


class RootsTabled(Operation):
    """An operation whose parameters are those of the document's language."""

    parameters: Table = Field(default="roots", validate_default=True)  # type: ignore[assignment]
    language: str = ""  # whose parameters; empty: the document's

    def of(self, draft: Draft) -> tuple[str, RootsParameters]:
        code = quality_code(canonical_code(self.language or draft.language))
        return code, self.parameters.get(code, self.parameters[DEFAULT])


class RootsModifiers(RootsTabled):
    """Makes white space uniform, removes controls, words that are parts of addresses, and over-long words."""

    operation: Literal["roots_modifiers"] = "roots_modifiers"
    keep_lines: bool = True  # ROOTS made newlines spaces as well

    def function(self) -> Apply:
        from stages.corpus.measures.roots import uniform, without_words

        def apply(draft: Draft) -> Draft:
            _, numbers = self.of(draft)
            text = uniform(draft.text, keep_lines=self.keep_lines)
            if numbers.longest_word is not None or numbers.unwanted_in_words:
                text = without_words(text, numbers.unwanted_in_words, numbers.longest_word)
            return changed(draft, text)

        return apply


class RootsQuality(RootsTabled):
    """Drops a document by one of ROOTS' eight statistics, the first that is out of its language's bounds.

    Number of words, character repetition, word repetition, special characters, stop words, flagged words, language
    score and perplexity. A statistic that needs something not given (a list, a model) is left out, as ROOTS did.
    """

    operation: Literal["roots_quality"] = "roots_quality"
    language_score: Literal["roots", "cld2", "off"] = "roots"  # the detector; ROOTS' thresholds are fastText's
    stop_words: Mapping[str, WordList] = {}  # by language, instead of those that are known
    flagged_words: Mapping[str, WordList] = {}  # by language; none are shipped
    language_models: Mapping[str, NgramModel] = {}  # by language: steps that train them

    def function(self) -> Apply:
        from stages.corpus.measures import roots

        score = self._score()
        perplexities = {code: model.perplexity() for code, model in self.language_models.items()}

        def broken(draft: Draft) -> Drop | None:
            code, numbers = self.of(draft)
            words = roots.words(draft.text, characters=numbers.characters_as_words)
            found = _outside("too_few_words", len(words), numbers.min_words, None) or _outside(
                "too_many_words", len(words), None, numbers.max_words
            )
            if found:
                return found
            if numbers.max_character_repetition is not None:
                repetition = roots.character_repetition(draft.text, numbers.character_ngram)
                if found := _outside("character_repetition", repetition, None, numbers.max_character_repetition):
                    return found
            lowered = [word.lower() for word in words]
            if numbers.max_word_repetition is not None:
                repetition = roots.word_repetition(lowered, numbers.word_ngram)
                if found := _outside("word_repetition", repetition, None, numbers.max_word_repetition):
                    return found
            if numbers.max_special_characters is not None:
                special = roots.special_character_ratio(draft.text)
                if found := _outside("special_characters", special, None, numbers.max_special_characters):
                    return found
            joined_by = numbers.neighbours_joined_by
            listed = stop_words(code, self.stop_words.get(code)) if numbers.min_stop_words is not None else None
            if listed:
                share = roots.listed_ratio(lowered, listed, joined_by)
                if found := _outside("stop_words", share, numbers.min_stop_words, None):
                    return found
            if code in self.flagged_words and numbers.max_flagged_words is not None:
                share = roots.listed_ratio(lowered, stop_words(code, self.flagged_words[code]), joined_by)
                if found := _outside("flagged_words", share, None, numbers.max_flagged_words):
                    return found
            if score and numbers.min_language_score is not None:
                if found := _outside("language_score", score(code, draft.text), numbers.min_language_score, None):
                    return found
            if code in perplexities and numbers.max_perplexity is not None:
                return _outside("perplexity", perplexities[code](draft.text), None, numbers.max_perplexity)
            return None

        return lambda draft: broken(draft) or draft

    def _score(self) -> Callable[[str, str], float] | None:
        """A function of language and text; a language that the detector does not know scores 1."""
        if self.language_score == "off":
            return None
        from stages.corpus.measures.language import detector, knows

        detect, backend = detector(self.language_score), self.language_score

        def score(code: str, text: str) -> float:
            if not knows(backend, canonical_code(code)):
                return 1.0
            best = detect(text)[0]
            return best.share if quality_code(best.language) == code else 0.0

        return score


def _outside(rule: str, value: float, minimum: float | None, maximum: float | None) -> Drop | None:
    if minimum is not None and value < minimum:
        return Drop(rule, value, minimum)
    if maximum is not None and value > maximum:
        return Drop(rule, value, maximum)
    return None
