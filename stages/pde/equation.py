"""An equation as configuration: what conf/equation/*.yaml holds. Every text is parsed before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pydantic import Field, PositiveFloat, model_validator

from stages.base import Config, StageError
from stages.pde.language import LanguageError, Node, Vocabulary, derivatives, parse_equation, parse_expression

if TYPE_CHECKING:
    from stages.pde.system import System

NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
PRIOR = re.compile(r"\s*(normal|lognormal|uniform)\s*\(\s*([^,()]+)\s*,\s*([^,()]+)\s*\)\s*")
RESERVED = {"d", "exp", "log", "sin", "cos", "tanh", "sqrt"}
WIDE_REAL, WIDE_LOG = 1e3, 5.0  # standard deviations of the prior of a parameter that has none


class Prior(Config):
    """normal(mean, sd), lognormal(mean, sd of the logarithm), uniform(low, high)."""

    kind: str
    first: float
    second: float

    @property
    def positive(self) -> bool:
        return self.kind == "lognormal"


class ParameterPrior(Config):
    """What is known of a parameter beforehand. With neither field it is a real number with a very wide prior."""

    prior: str | None = None  # normal(mean, sd), lognormal(mean, sd) of the logarithm, or uniform(low, high)
    positive: bool = False
    start: float | None = None  # where the search starts; null: chosen by the data

    @model_validator(mode="after")
    def _valid(self) -> Self:
        prior = self.parsed
        if self.positive and prior.kind == "normal":
            raise ValueError("a positive parameter has a lognormal or a uniform prior")
        if self.positive and prior.kind == "uniform" and prior.first < 0:
            raise ValueError(f"a positive parameter can't be {prior.first}")
        if self.start is not None and self.positive and self.start <= 0:
            raise ValueError(f"start: a positive parameter can't be {self.start}")
        return self

    @property
    def parsed(self) -> Prior:
        if self.prior is None:
            return (
                Prior(kind="lognormal", first=0, second=WIDE_LOG)
                if self.positive
                else Prior(kind="normal", first=0, second=WIDE_REAL)
            )
        match = PRIOR.fullmatch(self.prior)
        expected = "normal(mean, sd), lognormal(mean, sd) or uniform(low, high)"
        if match is None:
            raise ValueError(f"prior: {self.prior!r} is not a prior; expected {expected}")
        try:
            first, second = float(match[2]), float(match[3])
        except ValueError:
            raise ValueError(f"prior: {self.prior!r} has a text for a number; expected {expected}") from None
        if not (math.isfinite(first) and math.isfinite(second)) or (
            second <= first if match[1] == "uniform" else second <= 0
        ):
            raise ValueError(f"prior: {self.prior!r} has impossible numbers; expected {expected}")
        return Prior(kind=match[1], first=first, second=second)


class Condition(Config):
    """A value on an edge: at `coordinate` = `place`, `left` (a component or a derivative) is `right`."""

    component: str
    orders: tuple[int, ...]
    coordinate: str
    place: float
    value: str  # an expression of the coordinates


class Equation(Config):
    """Differential equations with unknown parameters, as text."""

    components: tuple[str, ...] = Field(min_length=1, max_length=8)
    coordinates: tuple[str, ...] = Field(min_length=1, max_length=4)  # t first, where there is a time
    equations: tuple[str, ...] = Field(min_length=1, max_length=16)  # "u_t - D*u_xx = 0"; d(f, x) differentiates f
    parameters: Mapping[str, ParameterPrior]
    boundary: Mapping[str, str] = {}  # by component: "x=0: 0; x=1: u_x = 0; t=0: exp(-x**2)"
    boundary_sd: PositiveFloat | None = None  # of boundary values, in units of the component; null: exact

    @model_validator(mode="after")
    def _parses(self) -> Self:
        if not self.parameters:
            raise ValueError("parameters: expected at least one")
        for kind, names, pattern in (
            ("component", self.components, NAME),
            ("coordinate", self.coordinates, NAME),
            ("parameter", tuple(self.parameters), PARAMETER),
        ):
            for name in names:
                if not pattern.fullmatch(name) or name in RESERVED:
                    raise ValueError(f"{name!r} can't be the name of a {kind}; expected letters and digits")
        names = (*self.components, *self.coordinates, *self.parameters)
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{double!r} is the name of two things")
        if len(self.equations) < len(self.components):
            raise ValueError(f"{len(self.equations)} equations can't determine {len(self.components)} components")
        _ = self.nodes, self.conditions
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.components, self.coordinates, tuple(self.parameters))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The parsed equations."""
        found = []
        for number, text in enumerate(self.equations):
            try:
                found.append(parse_equation(text, self.vocabulary))
            except LanguageError as error:
                raise ValueError(f"equations.{number}: {error}") from None
            if not derivatives(found[-1]):
                raise ValueError(f"equations.{number}: {text!r} has no component")
        return tuple(found)

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The boundary values."""
        found = []
        for component, text in self.boundary.items():
            if component not in self.components:
                raise ValueError(f"boundary: {component!r} is not a component; expected {', '.join(self.components)}")
            for part in filter(str.strip, text.split(";")):
                try:
                    found.append(self._condition(component, part))
                except LanguageError as error:
                    raise ValueError(f"boundary.{component}: {error}") from None
        return tuple(found)

    def system(self) -> System:
        """The equations for numbers. Raises StageError."""
        from stages.pde import system

        try:
            return system.system(self.nodes, self.vocabulary)
        except ValueError as error:
            raise StageError(f"equations: {error}") from None

    def _condition(self, component: str, text: str) -> Condition:
        edge, colon, value = text.partition(":")
        coordinate, equals, place = edge.partition("=")
        if not colon or not equals or coordinate.strip() not in self.coordinates:
            expected = f"{self.coordinates[-1]}=0: 0"
            raise ValueError(f"boundary.{component}: {text.strip()!r} is not a boundary value; expected {expected!r}")
        try:
            at = float(place)
        except ValueError:
            raise ValueError(f"boundary.{component}: {place.strip()!r} in {text.strip()!r} is not a number") from None
        left, equals, right = value.rpartition("=")
        named = parse_expression(left, self.vocabulary) if equals else None
        own = derivatives(named) if named is not None else set()
        if named is not None and (named not in own or next(iter(own)).component != component):
            raise ValueError(f"boundary.{component}: {left.strip()!r} is not {component} or a derivative of it")
        parse_expression(right.strip(), Vocabulary((), self.coordinates))
        orders = next(iter(own)).orders if own else (0,) * len(self.coordinates)
        return Condition(
            component=component, orders=orders, coordinate=coordinate.strip(), place=at, value=right.strip()
        )
