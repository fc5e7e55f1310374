"""A linear model of the quality of texts, and its scores of held-out documents.

model.json          table size, numbers of documents, percentiles of the scores of held-out good documents
model.safetensors   `weights` (float32, one for each cell of the table) and `bias` (float32 [1])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from stages.base import Artifact, ArtifactError, Config
from stages.json_files import read_json

if TYPE_CHECKING:
    import numpy as np

FACTS, WEIGHTS = "model.json", "model.safetensors"
FACTS_LIMIT_BYTES = 1 << 20
PERCENTILES = 101  # 0, 1, ..., 100
Score = Annotated[float, Field(ge=0, le=1)]


class QualityFacts(Config):
    """The description of the model, and how it separates held-out documents."""

    table_bits: Annotated[int, Field(ge=8, le=26)]
    good_documents: PositiveInt  # for training
    other_documents: PositiveInt
    accuracy: Score  # balanced, on held-out documents, at a score of 0.5
    percentiles: tuple[Score, ...]  # of the scores of held-out good documents

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if len(self.percentiles) != PERCENTILES or any(one > two for one, two in pairwise(self.percentiles)):
            raise ValueError(f"percentiles are not {PERCENTILES} ascending numbers")
        return self


@dataclass(frozen=True)
class QualityModel(Artifact):
    """A trained quality classifier. Its files are JSON and safetensors, so opening it executes no code."""

    @property
    def facts(self) -> QualityFacts:
        return read_json(self.path / FACTS, QualityFacts, "a quality model's facts", FACTS_LIMIT_BYTES)

    def scorer(self) -> Callable[[str], float]:
        """Load the model; returns a function that gives the score of a text, 0 to 1: high for good text."""
        from stages.corpus.statistics.word_features import word_features

        bits = self.facts.table_bits
        weights, bias = self._weights(bits)
        return lambda text: score_of(word_features([text], bits)[0], weights, bias)

    def percentile(self, percent: float) -> float:
        """The score that `percent` of the held-out good documents do not exceed."""
        values = self.facts.percentiles
        below = min(int(percent), PERCENTILES - 2)
        return values[below] + (percent - below) * (values[below + 1] - values[below])

    def check(self) -> None:
        self._weights(self.facts.table_bits)

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "good documents": facts.good_documents,
            "other documents": facts.other_documents,
            "held-out accuracy": facts.accuracy,
            "scores of held-out good text": {f"{percent} %": facts.percentiles[percent] for percent in (5, 50, 95)},
        }

    def _weights(self, bits: int) -> tuple[np.ndarray, float]:
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.path / WEIGHTS
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} is not a readable safetensors file: {error}") from None
        shapes = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
        if shapes != {"weights": ("float32", (1 << bits,)), "bias": ("float32", (1,))}:
            raise ArtifactError(f"{path} does not fit {FACTS}: it has {shapes}")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ArtifactError(f"{path} has values that are not finite")
        return arrays["weights"], float(arrays["bias"][0])


def score_of(cells: np.ndarray, weights: np.ndarray, bias: float) -> float:
    """The score of a text with these features: the logistic function of the bias and the mean of its weights."""
    import numpy as np

    mean = float(weights[cells].mean(dtype=np.float64)) if len(cells) else 0.0
    return float(1 / (1 + np.exp(-np.clip(mean + bias, -30, 30))))
