"""What an evaluation found: the size of held-out text under a model and under the baselines, and completions.

report.json   bits by source, by language and by coder, and the completions
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from stages.base import Artifact, ArtifactError, Config, Forecast

REPORT = "report.json"
REPORT_LIMIT_BYTES = 64 << 20


class Bits(Config):
    """One text, or several, and its size in bits under each coder. `+` adds up two."""

    documents: NonNegativeInt = 0
    bytes: NonNegativeInt = 0  # of the text in UTF-8: what every coder has to account for
    tokens: NonNegativeInt = 0  # of the model, ends of text included
    model: NonNegativeFloat = Field(default=0, allow_inf_nan=False)
    ngram: NonNegativeFloat = Field(default=0, allow_inf_nan=False)
    xz: NonNegativeFloat = 0  # all documents in one file
    xz_per_document: NonNegativeFloat = 0  # each in a file of its own, as the model and the n-gram have it

    def __add__(self, other: Bits) -> Bits:
        return Bits(**{name: getattr(self, name) + getattr(other, name) for name in Bits.model_fields})

    def per_byte(self, coder: str) -> float:
        """Bits per byte under `coder`: the name of one of the fields that hold bits."""
        return float(getattr(self, coder)) / self.bytes

    @property
    def perplexity(self) -> float:
        """Of the model, per token; infinite where it is beyond a float."""
        try:
            return float(2 ** (self.model / self.tokens))
        except OverflowError:
            return math.inf


class EvaluationForecast(Forecast):
    """What is known of an evaluation before it is made: the name of the step whose model it measures."""

    model_step: str


class Completion(Config):
    """What the model made of a prompt."""

    prompt: str
    text: str
    temperature: NonNegativeFloat  # 0: the likeliest token each time
    tokens: NonNegativeInt


class EvalResults(Config):
    """The whole of an evaluation. `xz` of a source, a language or the total is of one file: they do not add up."""

    total: Bits
    sources: Mapping[str, Bits] = Field(min_length=1)
    languages: Mapping[str, Bits] = Field(min_length=1)  # "": documents without a label
    ngram_order: PositiveInt  # bytes of a gram
    ngram_train_bytes: NonNegativeInt
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class EvalReport(Artifact):
    """Bits per byte and perplexity on held-out documents, against `xz -9` and an n-gram model."""

    @property
    def results(self) -> EvalResults:
        path = self.path / REPORT
        try:
            if path.stat().st_size > REPORT_LIMIT_BYTES:
                raise ArtifactError(f"{path} is larger than {REPORT_LIMIT_BYTES} bytes: not an evaluation's report")
            return EvalResults.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(f"{path} is not an evaluation's report: {where}: {first['msg']}") from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None

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
