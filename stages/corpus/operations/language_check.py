"""Checks the declared language of a document, or identifies its language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from stages.artifacts.manifest import UNCHECKED
from stages.corpus.languages import LANGUAGES, OTHERS, canonical_code
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation

Share = Annotated[float, Field(ge=0, le=1)]


def _codes(values: Mapping[str, float]) -> Mapping[str, float]:
    unknown = [code for code in values if code not in LANGUAGES and code not in OTHERS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a language of the corpus; see the codes in stages/corpus/languages.py")
    return values


class IdentifyLanguage(Operation):
    """Drops documents that are not in their declared language, or identifies the language of each document.

    With `cld2`, the value is the share of the letters that are in the language; languages that cannot be distinguished
    count as one, and text in no language does not count. With `roots`, the value is fastText's probability, for which
    ROOTS' thresholds were made. Programming languages are kept as declared. So are languages that the detector does not
    know; the data card names these, and counts their documents.
    """

    version: ClassVar[str] = "3"

    operation: Literal["language"] = "language"
    detector: Literal["cld2", "roots"] = "cld2"
    declared: Literal["check", "ignore"] = "check"  # ignore: the identified language replaces the declared one
    minimum: Share = 0.7
    minimums: Annotated[Mapping[str, Share], AfterValidator(_codes)] = {}  # for single languages, by code
    keep_others: bool = False  # also keep languages that ROOTS does not have

    def function(self) -> Apply:
        from stages.corpus.statistics.language_detection import detector, knows, near

        detect = detector(self.detector)
        known = {code for code in (*LANGUAGES, *OTHERS) if knows(self.detector, code)}

        def check(draft: Draft, code: str) -> Draft | Drop:
            found = detect(draft.text)
            least = self.minimums.get(code, self.minimum)
            if not near(found[0].language, code):
                return Drop("wrong_language", found[0].language, code)
            share = min(sum(guess.share for guess in found if near(guess.language, code)), 1.0)
            return replace(draft, language=code) if share >= least else Drop("language_share", share, least)

        def find(draft: Draft) -> Draft | Drop:
            language, share = detect(draft.text)[0]
            least = self.minimums.get(language, self.minimum)
            if language not in LANGUAGES and not self.keep_others:
                return Drop("other_language", language, "a language of the corpus")
            return replace(draft, language=language) if share >= least else Drop("language_share", share, least)

        def apply(draft: Draft) -> Draft | Drop:
            code = canonical_code(draft.language)
            if code in LANGUAGES and LANGUAGES[code].kind == "programming":
                return draft
            if not code or self.declared == "ignore":
                return find(draft)
            return check(draft, code) if code in known else replace(draft, counts={**draft.counts, UNCHECKED: 1})

        return apply
