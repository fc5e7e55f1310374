"""A simulation as configuration: what conf/simulation/*.yaml holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stages.base import Config
from stages.pde.equation import Equation


class Axis(Config):
    """Equidistant points of a coordinate that are observed."""

    first: float
    last: float
    points: PositiveInt
    nodes: PositiveInt = 161  # of the solver, from `start` to `end`; of the first coordinate: steps between two points
    start: float | None = None  # of the solver's range; null: the first observed point
    end: float | None = None

    @model_validator(mode="after")
    def _valid(self) -> Self:
        low, high = self.low, self.high
        if not low <= self.first < self.last <= high:
            raise ValueError(f"expected start <= first < last <= end, got {low}, {self.first}, {self.last}, {high}")
        return self

    @property
    def low(self) -> float:
        return self.first if self.start is None else self.start

    @property
    def high(self) -> float:
        return self.last if self.end is None else self.end


class Simulation(Config):
    """An equation with known parameters, solved and observed with noise."""

    equation: Equation
    parameters: Mapping[str, float]
    initial: Mapping[str, tuple[str, ...]]  # by component: its value at the first time, then its time derivatives
    grid: Mapping[str, Axis]
    noise: NonNegativeFloat = 0.02  # standard deviation
    relative_noise: bool = False  # noise is relative to the true value
    hidden: tuple[str, ...] = ()  # components that are not observed
    censored_below: Mapping[str, float] = {}  # detection limits by component
    missing_share: float = Field(default=0.0, ge=0, lt=1)  # of the values, at random
    replicates: PositiveInt = 1  # observations of every point
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for field, found, expected in (
            ("parameters", self.parameters, tuple(self.equation.parameters)),
            ("grid", self.grid, self.equation.coordinates),
            ("initial", self.initial, self.equation.components),
        ):
            if set(found) != set(expected):
                raise ValueError(f"{field}: expected values of {', '.join(expected)}, got {', '.join(found) or 'none'}")
        return self
