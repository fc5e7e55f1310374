"""Drops documents with unusual perplexity under an n-gram model that the pipeline trained on good text."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from stages.corpus.languages import canonical_code
from stages.corpus.ngram_model import NgramModel
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation, at_least, at_most, checked


class Perplexity(Operation):
    """Drops documents whose perplexity per word is outside of bounds, absolute or as percentiles of held-out good text.

    Percentiles refer to the held-out documents of the model: 99 is the value that 99 % of them do not exceed.
    """

    operation: Literal["perplexity"] = "perplexity"
    model: NgramModel  # the step that trains it
    languages: tuple[str, ...] = ()  # codes of the languages to which the bounds apply; empty: all
    maximum: NonNegativeFloat | None = None
    maximum_percentile: float | None = Field(default=None, ge=0, le=100)
    minimum: NonNegativeFloat | None = None  # repetitive text is easy to predict
    minimum_percentile: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        for side in ("maximum", "minimum"):
            if getattr(self, side) is not None and getattr(self, f"{side}_percentile") is not None:
                raise ValueError(f"{side} and {side}_percentile contradict each other: set one of them")
        given = (self.maximum, self.maximum_percentile, self.minimum, self.minimum_percentile)
        if all(value is None for value in given):
            raise ValueError("no bound is set: set maximum_percentile, or another bound")
        return self

    def function(self) -> Apply:
        measure = self.model.perplexity()
        most = self._bound(self.maximum, self.maximum_percentile)
        least = self._bound(self.minimum, self.minimum_percentile)

        def apply(draft: Draft) -> Draft | Drop:
            if self.languages and canonical_code(draft.language) not in self.languages:
                return draft
            value = measure(draft.text)
            high = [] if most is None else [at_most("high_perplexity", value, most)]
            low = [] if least is None else [at_least("low_perplexity", value, least)]
            return checked(draft, [*high, *low])

        return apply

    def _bound(self, value: float | None, percentile: float | None) -> float | None:
        return value if percentile is None else self.model.percentile(percentile)
