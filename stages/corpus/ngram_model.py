"""An n-gram language model of bytes, and its perplexity on held-out documents.

model.json          order, table size, size of the training text, percentiles of perplexity on held-out documents
model.safetensors   counts, totals and types: three hashed tables for each order (stages/artifacts/byte_ngrams.py)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.base import Artifact, ArtifactError, Config
from stages.json_files import read_json

if TYPE_CHECKING:
    from stages.artifacts.byte_ngrams import HashedCounts

FACTS, TABLES = "model.json", "model.safetensors"
FACTS_LIMIT_BYTES = 1 << 20
PERCENTILES = 101  # 0, 1, ..., 100


class NgramFacts(Config):
    """The description of the model, and its perplexity on held-out text."""

    order: Annotated[int, Field(ge=1, le=8)]
    table_bits: Annotated[int, Field(ge=8, le=30)]  # of the number of cells of a table
    languages: tuple[str, ...]  # of the documents; empty: all of the corpus
    documents: PositiveInt
    train_bytes: PositiveInt
    held_out_documents: NonNegativeInt
    percentiles: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]  # of perplexity per word, held out

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if len(self.percentiles) != PERCENTILES or any(one > two for one, two in pairwise(self.percentiles)):
            raise ValueError(f"percentiles are not {PERCENTILES} ascending numbers")
        return self


@dataclass(frozen=True)
class NgramModel(Artifact):
    """A trained n-gram model. Its files are JSON and safetensors, so opening it executes no code."""

    @property
    def facts(self) -> NgramFacts:
        return read_json(self.path / FACTS, NgramFacts, "an n-gram model's facts", FACTS_LIMIT_BYTES)

    def perplexity(self) -> Callable[[str], float]:
        """Load the model; returns a function that gives the perplexity per word of a text."""
        from stages.corpus.statistics.word_perplexity import word_perplexity

        counts = self._counts()
        return lambda text: word_perplexity(counts, text)

    def percentile(self, percent: float) -> float:
        """The perplexity that `percent` of the held-out documents do not exceed."""
        values = self.facts.percentiles
        below = min(int(percent), PERCENTILES - 2)
        return values[below] + (percent - below) * (values[below + 1] - values[below])

    def check(self) -> None:
        self._counts()

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "order": facts.order,
            "documents": facts.documents,
            "train_bytes": facts.train_bytes,
            "held-out perplexity per word": {f"{percent} %": facts.percentiles[percent] for percent in (5, 50, 95, 99)},
        }

    def _counts(self) -> HashedCounts:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from stages.artifacts.byte_ngrams import HashedCounts

        facts, path = self.facts, self.path / TABLES
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} is not a readable safetensors file: {error}") from None
        try:
            return HashedCounts(facts.order, facts.table_bits, arrays)
        except ValueError as error:
            raise ArtifactError(f"{path} does not fit {FACTS}: {error}") from None
