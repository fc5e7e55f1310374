"""The results of an evaluation: the size of held-out text under the model and under the baselines, and completions.

report.json   bits by source, by language and by coder, and the completions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from stages.base import Artifact, ArtifactError, Config, Forecast
from stages.json_files import read_json
from stages.model.perplexity import perplexity

REPORT = "report.json"
REPORT_LIMIT_BYTES = 64 << 20


class Bits(Config):
    """One or several texts, and their size in bits under each coder. `+` adds two."""

    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0  # of the text in UTF-8, which every coder encodes
    tokens: NonNegativeInt = 0  # of the model, ends of text included
    model: NonNegativeFloat = Field(default=0, allow_inf_nan=False)
    ngram: NonNegativeFloat = Field(default=0, allow_inf_nan=False)
    xz: NonNegativeFloat = 0  # all documents in one file
    xz_per_document: NonNegativeFloat = 0  # each document in its own file, as the model and the n-gram see it

    def __add__(self, other: Bits) -> Bits:
        return Bits(**{name: getattr(self, name) + getattr(other, name) for name in Bits.model_fields})

    def per_byte(self, coder: str) -> float:
        """Bits per byte under `coder`: the name of one of the fields that hold bits."""
        return float(getattr(self, coder)) / self.bytes

    @property
    def perplexity(self) -> float:
        """The model's perplexity per token; infinite if it is too large for a float."""
        return perplexity(self.model / self.tokens, base=2)


class EvaluationForecast(Forecast):
    """What is known of an evaluation before its step has run: the name of the step whose model it measures."""

    model_step: str


class Completion(Config):
    """A text that the model wrote after a prompt."""

    prompt: str
    text: str
    temperature: NonNegativeFloat  # 0: the most likely token each time
    tokens: NonNegativeInt


class EvalResults(Config):
    """All results of an evaluation.

    `xz` of a source, a language or the total is the size of one compressed file, so these numbers do not add up.
    """

    total: Bits
    sources: Mapping[str, Bits] = Field(min_length=1)
    languages: Mapping[str, Bits] = Field(min_length=1)  # "": documents without a language
    ngram_order: PositiveInt  # in bytes
    ngram_train_bytes: NonNegativeInt
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class EvalReport(Artifact):
    """Bits per byte and perplexity on held-out documents, compared with `xz -9` and an n-gram model."""

    @property
    def results(self) -> EvalResults:
        """Raises ArtifactError if the report is missing, too large or not an evaluation's."""
        return read_json(self.path / REPORT, EvalResults, "an evaluation's report", REPORT_LIMIT_BYTES)

    def check(self) -> None:
        results = self.results
        for cut, parts in (("source", results.sources), ("language", results.languages)):
            added = sum(parts.values(), Bits())
            for name in ("documents", "bytes", "tokens"):
                if getattr(added, name) != getattr(results.total, name):
                    raise ArtifactError(f"{self.path / REPORT}: {name} by {cut} do not add up to the total")
        if not results.total.bytes:
            raise ArtifactError(f"{self.path / REPORT}: nothing was evaluated")

    def describe(self) -> Mapping[str, object]:
        results = self.results
        coders = ("model", "ngram", "xz", "xz_per_document")
        return {
            "bytes": results.total.bytes,
            "perplexity": results.total.perplexity,
            "bits per byte": {coder: results.total.per_byte(coder) for coder in coders},
            "bits per byte by source": {source: bits.per_byte("model") for source, bits in results.sources.items()},
            "bits per byte by language": {
                language or "(none)": bits.per_byte("model") for language, bits in results.languages.items()
            },
        }
