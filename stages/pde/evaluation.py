"""What the evaluation of a posterior found, in report.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import NonNegativeFloat, NonNegativeInt

from stages.base import Artifact, Config
from stages.json_files import read_json

REPORT = "report.json"
REPORT_LIMIT_BYTES = 4 << 20


class Recovery(Config):
    """A parameter next to the value that the data were simulated with."""

    truth: float
    relative_error: float
    covered: bool  # by the 95 % interval


class FieldError(Config):
    """A component's prediction next to data, or to the truth."""

    values: NonNegativeInt
    rmse: NonNegativeFloat
    coverage: float  # share within the 95 % band (with the noise, next to data)
    log_density: float | None = None  # mean, of data


class EvaluationResults(Config):
    """The whole of an evaluation."""

    line: str
    recovery: Mapping[str, Recovery] = {}
    training: Mapping[str, FieldError]
    held_out: Mapping[str, FieldError] = {}
    truth: Mapping[str, FieldError] = {}
    residual_rms: tuple[float, ...]  # of each equation on a grid, relative to the root mean square of its terms
    log_evidence: float


@dataclass(frozen=True)
class Evaluation(Artifact):
    """How a posterior compares with data, held-out data and, where it is known, the truth."""

    @property
    def results(self) -> EvaluationResults:
        return read_json(self.path / REPORT, EvaluationResults, "an evaluation", REPORT_LIMIT_BYTES)

    def check(self) -> None:
        _ = self.results

    def describe(self) -> Mapping[str, object]:
        results = self.results
        return {
            "parameters": results.line,
            "log evidence": results.log_evidence,
            "held-out RMSE": {name: one.rmse for name, one in results.held_out.items()},
            "RMSE against the true field": {name: one.rmse for name, one in results.truth.items()},
        }
