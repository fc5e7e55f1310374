"""What an evaluation on the test links found.

report.json   hits, mean rank and mean reciprocal rank in both directions, the weights, the robustness, and mistakes
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from stages.base import Artifact, ArtifactError, Config

REPORT = "report.json"
REPORT_LIMIT_BYTES = 64 << 20
Z = 1.96  # of a 95 % interval


class Accuracy(Config):
    """Of the queries' counterparts among all candidates, in one direction."""

    queries: PositiveInt
    hits_at_1: float = Field(ge=0, le=1)  # share of queries whose counterpart is the best candidate
    hits_at_10: float = Field(ge=0, le=1)
    hits_at_50: float = Field(ge=0, le=1)
    mean_rank: float = Field(ge=1)
    mrr: float = Field(ge=0, le=1)  # mean of 1 / rank

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of Hits@1, for queries drawn at random."""
        n, p = self.queries, self.hits_at_1
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


class Mistake(Config):
    """A query whose best candidate is not its counterpart."""

    entity: str
    answers: tuple[tuple[str, float], ...]  # entities with their CSLS, best first
    expected: str
    rank: float


class AlignmentResults(Config):
    """The whole of an evaluation."""

    source: str  # the pair
    fusion: str
    neighbours: NonNegativeInt  # k of CSLS; 0: cosine
    forward: Accuracy  # from the left graph to the right one
    backward: Accuracy
    weights: Mapping[str, tuple[float, float]]  # mean and standard deviation over the test entities, by modality
    corrupted_weights: Mapping[str, tuple[float, float]] = {}  # mean of corrupted and of intact entities
    robustness: Mapping[str, tuple[tuple[float, float], ...]] = {}  # (share of noise, Hits@1), by modality
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class AlignmentReport(Artifact):
    """Entity alignment: how many counterparts an alignment finds among the test links."""

    @property
    def results(self) -> AlignmentResults:
        path = self.path / REPORT
        try:
            if path.stat().st_size > REPORT_LIMIT_BYTES:
                raise ArtifactError(f"{path} is larger than {REPORT_LIMIT_BYTES} bytes")
            return AlignmentResults.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArtifactError(f"{path} is not a report: {error.errors()[0]['msg']}") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None

    def check(self) -> None:
        _ = self.results

    def describe(self) -> Mapping[str, object]:
        results = self.results
        return {
            "source": results.source,
            "fusion": results.fusion,
            "queries": results.forward.queries,
            "Hits@1": results.forward.hits_at_1,
            "Hits@10": results.forward.hits_at_10,
            "MRR": results.forward.mrr,
            "Hits@1 backward": results.backward.hits_at_1,
        }
