"""The artifact of explorations: what each method reached with each seed.

explorations.json   the problem, a curve for each method, policy and seed, and the uncertainty that the first seed left
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.base import Artifact, Config
from stages.json_files import read_json

EXPLORATIONS = "explorations.json"
LIMIT_BYTES = 64 << 20
Policy = Literal["last", "best_round"]


class ExplorationCurve(Config):
    """Worst and mean value over the contexts or initial states, after each number of trials or rounds."""

    method: str
    policy: Policy
    seed: NonNegativeInt
    at: tuple[PositiveInt, ...] = Field(min_length=1)
    worst: tuple[float, ...]
    mean: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> ExplorationCurve:
        if not len(self.at) == len(self.worst) == len(self.mean):
            raise ValueError("a curve's values are not as many as its places")
        return self


class ExplorationMap(Config):
    """What a method of the first seed left at the end: contexts or states, their gaps, and the chosen actions."""

    method: str
    places: tuple[tuple[float, ...], ...]
    gaps: tuple[float, ...]
    actions: tuple[tuple[float, ...], ...]


class ExplorationFacts(Config):
    """All curves of one problem."""

    problem: str
    measure: Literal["regret", "return"]  # what the values are: smaller or larger is better
    unit: Literal["trials", "rounds"]  # what the curves are over
    curves: tuple[ExplorationCurve, ...] = Field(min_length=1)
    maps: tuple[ExplorationMap, ...]

    def methods(self) -> list[str]:
        return list(dict.fromkeys(curve.method for curve in self.curves))


@dataclass(frozen=True)
class Explorations(Artifact):
    """What each method reached with each seed."""

    @cached_property
    def facts(self) -> ExplorationFacts:
        """Raises ArtifactError if the file is not what it should be."""
        return read_json(self.path / EXPLORATIONS, ExplorationFacts, "a file of explorations", LIMIT_BYTES)

    def check(self) -> None:
        _ = self.facts

    def describe(self) -> Mapping[str, object]:
        return {"problem": self.facts.problem, "methods": self.facts.methods()}
