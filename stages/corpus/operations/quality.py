"""Drops documents to which a quality classifier, trained in the pipeline, gives a low score."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.corpus.languages import canonical_code
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation, at_least, checked
from stages.corpus.quality_model import QualityModel


class Quality(Operation):
    """Drops documents with a score below a minimum, absolute (0 to 1) or as a percentile of held-out good documents.

    `minimum: 0` measures only.
    """

    operation: Literal["quality"] = "quality"
    model: QualityModel  # the step that trains it
    languages: tuple[str, ...] = ()  # codes of the languages that are scored; empty: all
    minimum: float | None = Field(default=None, ge=0, le=1)
    minimum_percentile: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if (self.minimum is None) == (self.minimum_percentile is None):
            raise ValueError("set either minimum or minimum_percentile")
        return self

    def function(self) -> Apply:
        score = self.model.scorer()
        percentile = self.minimum_percentile
        least = self.model.percentile(percentile) if percentile is not None else self.minimum or 0.0

        def apply(draft: Draft) -> Draft | Drop:
            if self.languages and canonical_code(draft.language) not in self.languages:
                return draft
            return checked(draft, [at_least("low_quality", score(draft.text), least)])

        return apply
