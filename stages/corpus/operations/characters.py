"""Keeps texts of a certain length."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from stages.corpus.operations.base import Apply, Draft, Drop, Operation


class Characters(Operation):
    """Texts of so many characters, without the white space around them."""

    operation: Literal["characters"] = "characters"
    minimum: NonNegativeInt = 0
    maximum: PositiveInt | None = None

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft | Drop:
            length = len(draft.text.strip())
            if length < self.minimum:
                return Drop("too_few", length, self.minimum)
            if self.maximum is not None and length > self.maximum:
                return Drop("too_many", length, self.maximum)
            return draft

        return apply
