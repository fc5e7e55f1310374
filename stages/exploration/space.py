"""Spaces of configurations: numbers on linear or logarithmic scales, integers, ordered and unordered choices.

A parameter maps the unit interval to its values and its values to columns of a matrix, in which a kernel measures
distances. A parameter can depend on another one: it is then active for some values of that parameter only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Value = bool | int | float | str | None
DIGITS = 6  # significant ones of a number of an interval: people read them in commands and files
Configuration = Mapping[str, Value]  # the values of the active parameters by name


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included. `log`: on a logarithmic scale. `integer`: whole numbers only."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"interval({self.low}, {self.high}); expected two finite numbers, the smaller one first")
        if self.log and self.low <= 0:
            raise ValueError(f"interval({self.low}, {self.high}) on a logarithmic scale; expected positive numbers")

    def values(self) -> tuple[Value, ...] | None:
        """All values, if they are finitely many."""
        return tuple(range(math.ceil(self.low), math.floor(self.high) + 1)) if self.integer else None

    def value(self, unit: float) -> Value:
        """The value at a place of the unit interval."""
        if self.log:
            found = math.exp(math.log(self.low) + unit * math.log(self.high / self.low))
        else:
            found = self.low + unit * (self.high - self.low)
        found = min(max(float(f"{found:.{DIGITS}g}"), self.low), self.high)
        return min(max(round(found), math.ceil(self.low)), math.floor(self.high)) if self.integer else found

    def encode(self, value: Value) -> list[float]:
        """One column in [0, 1]; 0.5 for a parameter that is not active."""
        if value is None:
            return [0.5]
        number = float(value)
        if self.log:
            return [math.log(number / self.low) / math.log(self.high / self.low)]
        return [(number - self.low) / (self.high - self.low)]


@dataclass(frozen=True)
class Choice:
    """One of several values. `ordered`: neighbours in the list are similar; otherwise all differ equally."""

    options: tuple[Value, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(set(map(repr, self.options))) != len(self.options) or not self.options:
            raise ValueError(f"choice{self.options}; expected at least one value, and none twice")

    def values(self) -> tuple[Value, ...]:
        return self.options

    def value(self, unit: float) -> Value:
        return self.options[min(int(unit * len(self.options)), len(self.options) - 1)]

    def encode(self, value: Value) -> list[float]:
        """The rank in [0, 1] in one column if ordered; else a column per option, at distance 1 from each other."""
        if self.ordered:
            return [0.5] if value is None else [self.options.index(value) / max(len(self.options) - 1, 1)]
        return [math.sqrt(0.5) * (option == value and type(option) is type(value)) for option in self.options]


@dataclass(frozen=True)
class Condition:
    """The parameter is active if the parameter `name` is active and has one of `values`."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """A named domain, with the condition under which it is active."""

    name: str
    domain: Interval | Choice
    condition: Condition | None = None


@dataclass(frozen=True)
class Space:
    """Contexts, which are given to the user, and actions, which the user chooses.

    Raises ValueError for a name that is there twice, for a condition on a parameter that does not stand before the one
    that has the condition, and for a context that depends on an action.
    """

    contexts: tuple[Parameter, ...]
    actions: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        seen: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if parameter.name in seen:
                raise ValueError(f"{parameter.name} is there twice; expected every parameter once")
            condition = parameter.condition
            if condition and condition.name not in seen:
                expected = "a context" if parameter in self.contexts else "a context or action"
                raise ValueError(
                    f"{parameter.name} depends on {condition.name}; expected {expected} that stands before it"
                )
            if condition:
                valid = seen[condition.name].domain.values()
                if unknown := [value for value in condition.values if valid is not None and value not in valid]:
                    raise ValueError(
                        f"{parameter.name} depends on {condition.name} being {unknown[0]!r}; expected one of {valid}"
                    )
            seen[parameter.name] = parameter
        if not self.actions:
            raise ValueError("there is no action; expected at least one parameter to choose")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.contexts, *self.actions)

    def groups(self) -> NDArray[np.int64]:
        """For each column of `encode`, the index of its parameter: columns of one parameter share a length scale."""
        widths = [len(parameter.domain.encode(None)) for parameter in self.parameters]
        return np.repeat(np.arange(len(widths)), widths)

    def encode(self, configurations: Sequence[Configuration]) -> Array:
        """A row of columns for each configuration (context and action together)."""
        rows = [
            [column for parameter in self.parameters for column in parameter.domain.encode(one.get(parameter.name))]
            for one in configurations
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.groups()))


def active(
    parameters: Iterable[Parameter], values: Mapping[str, Value], given: Configuration | None = None
) -> dict[str, Value]:
    """The values of the parameters that are active. `given`: the context, for parameters that depend on it."""
    kept: dict[str, Value] = {}
    known = dict(given or {})
    for parameter in parameters:
        condition = parameter.condition
        if condition is None or (condition.name in known and known[condition.name] in condition.values):
            kept[parameter.name] = known[parameter.name] = values[parameter.name]
    return kept


def candidates(
    parameters: Sequence[Parameter], limit: int, seed: int, given: Configuration | None = None
) -> list[dict[str, Value]]:
    """All configurations of the parameters if they are at most `limit`, else `limit` of a scrambled Sobol sequence.

    Each is there once. `given` as in `active`.
    """
    from scipy.stats import qmc

    if not parameters:
        return [{}]
    finite = [parameter.domain.values() for parameter in parameters]
    names = [parameter.name for parameter in parameters]
    rows: Iterable[Sequence[Any]]
    if all(values is not None for values in finite) and math.prod(len(values or ()) for values in finite) <= limit:
        rows = product(*(values or () for values in finite))
    else:
        units = qmc.Sobol(len(names), rng=np.random.default_rng(seed)).random_base2(max(limit - 1, 1).bit_length())
        rows = [
            [one.domain.value(unit) for one, unit in zip(parameters, row, strict=True)]
            for row in units[:limit].tolist()
        ]
    found = (active(parameters, dict(zip(names, row, strict=True)), given) for row in rows)
    return list({tuple(one.items()): one for one in found}.values())


def neighbours(
    parameters: Sequence[Parameter],
    around: Configuration,
    count: int,
    rng: np.random.Generator,
    given: Configuration | None = None,
) -> list[dict[str, Value]]:
    """Configurations near `around`: intervals move by a few percent of their length, other values sometimes change."""
    found = []
    for width in np.geomspace(0.2, 0.005, count):
        values: dict[str, Value] = {}
        for parameter in parameters:
            domain, value = parameter.domain, around.get(parameter.name)
            if value is None or (isinstance(domain, Choice) and rng.random() < 0.1):
                values[parameter.name] = domain.value(float(rng.random()))
            elif isinstance(domain, Choice):
                values[parameter.name] = value
            else:
                place = domain.encode(value)[0] + width * rng.standard_normal()
                values[parameter.name] = domain.value(min(max(float(place), 0.0), 1.0))
        found.append(active(parameters, values, given))
    return found
