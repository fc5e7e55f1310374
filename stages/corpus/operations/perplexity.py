"""Drops documents that a language model finds odd: an n-gram model that the pipeline trained on text that is good."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from stages.corpus.languages import canonical_code
from stages.corpus.ngram_model import NgramModel
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation


class Perplexity(Operation):
    """Drops documents whose perplexity per word is out of bounds, absolute or as percentiles of held-out good text.

    Percentiles are of the documents that the model's training held out: 99 allows what 99 in 100 of them stay below.
    """

    operation: Literal["perplexity"] = "perplexity"
    model: NgramModel  # the step that trains it
    languages: tuple[str, ...] = ()  # of documents that are looked at, by code; empty: all
    maximum: NonNegativeFloat | None = None
    maximum_percentile: float | None = Field(default=None, ge=0, le=100)
    minimum: NonNegativeFloat | None = None  # what repeats itself is easy to predict
    minimum_percentile: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        for side in ("maximum", "minimum"):
            if getattr(self, side) is not None and getattr(self, f"{side}_percentile") is not None:
                raise ValueError(f"{side} and {side}_percentile say the same twice: give one of them")
        given = (self.maximum, self.maximum_percentile, self.minimum, self.minimum_percentile)
        if all(value is None for value in given):
            raise ValueError("no bound is given: set maximum_percentile, or another bound")
        return self

    def function(self) -> Apply:
        measure = self.model.perplexity()
        most = self._bound(self.maximum, self.maximum_percentile)
        least = self._bound(self.minimum, self.minimum_percentile)

        def apply(draft: Draft) -> Draft | Drop:
            if self.languages and canonical_code(draft.language) not in self.languages:
                return draft
            value = measure(draft.text)
            if most is not None and value > most:
                return Drop("high_perplexity", value, most)
            if least is not None and value < least:
                return Drop("low_perplexity", value, least)
            return draft

        return apply

    def _bound(self, value: float | None, percentile: float | None) -> float | None:
        return value if percentile is None else self.model.percentile(percentile)
