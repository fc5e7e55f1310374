"""Drops documents by their size."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from stages.corpus.languages import canonical_code, quality_code
from stages.corpus.operations.operation import Apply, Draft, Drop, Operation, at_least, at_most, checked


class Sized(Operation):
    """Bounds of a size. Subclasses define what is counted."""

    minimum: NonNegativeInt = 0
    maximum: PositiveInt | None = None

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is less than minimum {self.minimum}: nothing would be kept")
        return self

    def size(self, draft: Draft) -> int:
        raise NotImplementedError

    def function(self) -> Apply:
        def apply(draft: Draft) -> Draft | Drop:
            size = self.size(draft)
            most = [] if self.maximum is None else [at_most("too_many", size, self.maximum)]
            return checked(draft, [at_least("too_few", size, self.minimum), *most])

        return apply


class Words(Sized):
    """Bounds the number of words between white space (ROOTS: filter_small_docs keeps 15 or more).

    In Chinese, Japanese, Thai, Lao, Khmer and Burmese, words are found by ICU's dictionaries.
    """

    version: ClassVar[str] = "2"

    operation: Literal["words"] = "words"
    minimum: NonNegativeInt = 15

    def size(self, draft: Draft) -> int:
        from stages.corpus.statistics.segmentation import count_words

        return count_words(draft.text, quality_code(canonical_code(draft.language)))


class Bytes(Sized):
    """Bounds the number of bytes in UTF-8 (ROOTS: filter_small_docs_bytes_300 and _1024)."""

    operation: Literal["bytes"] = "bytes"
    minimum: NonNegativeInt = 300

    def size(self, draft: Draft) -> int:
        return len(draft.text.encode("utf-8", "surrogatepass"))


class Characters(Sized):
    """Bounds the number of characters without outer white space. `minimum: 1` is ROOTS' filter_remove_empty_docs."""

    operation: Literal["characters"] = "characters"
    minimum: NonNegativeInt = 1

    def size(self, draft: Draft) -> int:
        return len(draft.text.strip())
