"""The axis of a plot: where a value is drawn, and at which values it has marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOGARITHMIC_RATIO = 20.0  # of the largest to the smallest value, from which an axis is logarithmic
MARKS = 5
UNITS = {1e3: "k", 1e6: "M", 1e9: "G", 1e12: "T"}
LEAST_WITH_UNIT = 1e4


@dataclass(frozen=True)
class Axis:
    """A mapping of values to [0, 1]. Numbers are placed by size, other values in their order at equal distances."""

    texts: tuple[str, ...]  # of an axis without numbers
    low: float
    high: float
    logarithmic: bool
    few: tuple[float, ...] = ()  # the values themselves, if they are so few that each can have its mark

    def place(self, value: str | float) -> float | None:
        """Where a value is; None if it is not on the axis."""
        if self.texts:
            gaps = max(len(self.texts) - 1, 1)
            return self.texts.index(str(value)) / gaps if str(value) in self.texts else None
        number = parse(value)
        if number is None or (self.logarithmic and number <= 0):
            return None
        low, high, at = (math.log(part) for part in (self.low, self.high, number)) if self.logarithmic else (
            self.low, self.high, number)  # fmt: skip
        return 0.5 if high == low else (at - low) / (high - low)

    def marks(self) -> list[tuple[str, float]]:
        """Labels and their places."""
        if self.texts:
            return [(text, place) for text in self.texts if (place := self.place(text)) is not None]
        if self.low == self.high:
            return [(_label(self.low), 0.5)]
        if self.few:
            return [(_label(value), place) for value in self.few if (place := self.place(value)) is not None]
        values = _powers(self.low, self.high) if self.logarithmic else _rounded(self.low, self.high)
        if len(values) < 2:
            values = [self.low, self.high]
        return [(_label(value), place) for value in values if (place := self.place(value)) is not None]


def axis_of(values: Sequence[str | float], may_be_logarithmic: bool = True) -> Axis:
    """The axis for values: of numbers if all are numbers, logarithmic if they spread over more than a decade."""
    numbers = [number for value in values if (number := parse(value)) is not None]
    if not values or len(numbers) < len(values):
        return Axis(tuple(dict.fromkeys(map(str, values))), 0.0, 1.0, False)
    low, high = min(numbers), max(numbers)
    logarithmic = may_be_logarithmic and low > 0 and high / low >= LOGARITHMIC_RATIO
    distinct = tuple(sorted({*numbers}))
    return Axis((), low, high, logarithmic, distinct if len(distinct) <= MARKS else ())


def parse(value: str | float) -> float | None:
    """A value as a finite number; None if it is none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _rounded(low: float, high: float) -> list[float]:
    """Round values within a range, about `MARKS` of them."""
    rough = (high - low) / MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    return [10.0**exponent for exponent in exponents]


def _label(value: float) -> str:
    """A mark of an axis in few characters, so that it fits next to the plot: 0.001, 250, 5.02G."""
    for unit, letter in UNITS.items():
        if unit <= abs(value) < 1000 * unit and abs(value) >= LEAST_WITH_UNIT:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"
