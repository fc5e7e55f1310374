"""What an evaluation against a dictionary found.

report.json   precision and mean reciprocal rank before and after refinement, P@1 by iteration, and the mistakes
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, PositiveInt, model_validator

from stages.base import Artifact, Config
from stages.json_files import read_json

REPORT = "report.json"
REPORT_LIMIT_BYTES = 64 << 20
Z = 1.96  # of a 95 % interval


class Accuracy(Config):
    """Of the queries' translations under CSLS."""

    queries: PositiveInt
    p_at_1: float = Field(ge=0, le=1)  # share of queries whose best word is a translation
    p_at_5: float = Field(ge=0, le=1)  # ... that have one among the best five
    mrr: float = Field(ge=0, le=1)  # mean of 1 / rank of the best translation

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of P@1, for queries drawn at random."""
        n, p = self.queries, self.p_at_1
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


class Mistake(Config):
    """A query whose best word is not a translation."""

    word: str
    answers: tuple[tuple[str, float], ...]  # words with their CSLS, best first
    expected: tuple[str, ...]


class LexiconResults(Config):
    """The whole of an evaluation."""

    languages: tuple[str, str]
    method: str
    reliable: bool  # what the alignment says of itself, without the dictionary
    dictionary_words: PositiveInt  # source words of the dictionary, whether the vocabularies have them or not
    before: Accuracy  # refinement
    after: Accuracy
    backward: Accuracy  # from the target to the source, after refinement
    by_iteration: tuple[float, ...]  # P@1 among the most frequent words, for each W of the trajectory
    mistakes: tuple[Mistake, ...]

    @model_validator(mode="after")
    def _same_queries(self) -> LexiconResults:
        if self.before.queries != self.after.queries:
            raise ValueError("before and after refinement have different numbers of queries")
        return self


@dataclass(frozen=True)
class LexiconReport(Artifact):
    """Bilingual lexicon induction: how many translations of a dictionary an alignment finds."""

    @property
    def results(self) -> LexiconResults:
        return read_json(self.path / REPORT, LexiconResults, "a lexicon report", REPORT_LIMIT_BYTES)

    def check(self) -> None:
        _ = self.results

    def describe(self) -> Mapping[str, object]:
        results = self.results
        return {
            "languages": " -> ".join(results.languages),
            "queries": results.after.queries,
            "P@1": results.after.p_at_1,
            "P@1 before refinement": results.before.p_at_1,
            "P@5": results.after.p_at_5,
            "MRR": results.after.mrr,
        }
