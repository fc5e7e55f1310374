"""A system of differential equations, ready for numbers: its residuals, their derivatives, and what kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import sympy

from stages.pde.language import Derivative, Node, Vocabulary, derivative_name
from stages.pde.symbols import Expression, Symbols, evaluate


class NotLinearError(ValueError):
    """No augmentation makes an equation linear in all derivatives."""


@dataclass(frozen=True)
class System:
    """Equations F_e(derivatives, coordinates, parameters) = 0.

    `derivatives`: the components and derivatives that occur, with their SymPy symbols. `linear`: every F is affine in
    all of them, so that the components can be integrated out. `augmentation`: the equations with new components that
    are linear in all derivatives; as they were if they were so already.
    """

    vocabulary: Vocabulary
    derivatives: Mapping[Expression, Derivative]
    residuals: tuple[Expression, ...]
    by_derivative: tuple[Mapping[Expression, Expression], ...]  # dF_e / d derivative, where it is not zero
    by_parameter: tuple[Mapping[str, Expression], ...]
    linear: bool
    augmentation: tuple[str, ...]
    symbols: Symbols

    def orders(self, component: str) -> list[tuple[int, ...]]:
        return [one.orders for one in self.derivatives.values() if one.component == component]

    def values(
        self, derivatives: Mapping[Expression, Any], points: Any, parameters: Mapping[str, Any]
    ) -> dict[Any, Any]:
        """The values of all symbols. `points`: [n, coordinates]."""
        found = dict(derivatives)
        found |= {symbol: points[:, axis] for axis, symbol in enumerate(self.symbols.coordinates.values())}
        return found | {symbol: parameters[name] for name, symbol in self.symbols.parameters.items()}

    def residual(self, equation: int, values: Mapping[Expression, Any], library: ModuleType) -> Any:
        return evaluate(self.residuals[equation], values, library)


def system(nodes: Sequence[Node], vocabulary: Vocabulary) -> System:
    """The system of parsed equations. Raises ValueError, NotLinearError."""
    symbols = Symbols(vocabulary)
    residuals = tuple(symbols.expression(node) for node in nodes)
    used = set().union(*(one.free_symbols for one in residuals))
    missing = [name for name, symbol in symbols.parameters.items() if symbol not in used]
    if missing:
        raise ValueError(f"no equation has the parameter {missing[0]!r}")
    derivatives = {symbol: one for symbol, one in sorted(symbols.derivatives.items(), key=str) if symbol in used}
    by_derivative = tuple(
        {symbol: sympy.diff(one, symbol) for symbol in derivatives if symbol in one.free_symbols} for one in residuals
    )
    by_parameter = tuple(
        {name: sympy.diff(one, symbol) for name, symbol in symbols.parameters.items() if symbol in one.free_symbols}
        for one in residuals
    )
    linear = all(not (slope.free_symbols & set(derivatives)) for slopes in by_derivative for slope in slopes.values())
    lines = _augmentation(residuals, symbols, derivatives)
    return System(vocabulary, derivatives, residuals, by_derivative, by_parameter, linear, lines, symbols)


def _augmentation(
    residuals: Sequence[Expression], symbols: Symbols, derivatives: Mapping[Expression, Derivative]
) -> tuple[str, ...]:
    """The equations with new components for the derivatives in which they are not linear. Raises NotLinearError.

    A derivative that multiplies another one, or is within a power or a function, becomes a component, and its own
    derivatives are those of the new component. The equations have to be linear in the derivatives that remain.
    """
    vocabulary = symbols.vocabulary
    proper = [symbol for symbol, one in derivatives.items() if any(one.orders)]
    new: dict[Expression, Expression] = {}
    for residual in residuals:
        for symbol in proper:
            if sympy.diff(residual, symbol).free_symbols & set(proper):
                one = derivatives[symbol]
                new[symbol] = sympy.Symbol(
                    f"{derivative_name(one.component, one.orders, vocabulary.coordinates)}".replace("_", "")
                )
    changed: dict[Expression, Expression] = dict(new)
    for symbol in proper:  # u_xx becomes v_x where v = u_x is a component
        for inner, name in new.items():
            one, base = derivatives[symbol], derivatives[inner]
            rest = [a - b for a, b in zip(one.orders, base.orders, strict=True)]
            if symbol not in changed and one.component == base.component and min(rest) >= 0 and any(rest):
                changed[symbol] = sympy.Symbol(derivative_name(str(name), rest, vocabulary.coordinates))
    remaining = [changed.get(symbol, symbol) for symbol in proper if symbol not in new]
    lines = []
    for number, residual in enumerate(residuals):
        found = residual.subs(changed, simultaneous=True)
        slopes = [sympy.diff(found, symbol) for symbol in remaining]
        if any(slope.free_symbols & set(remaining) for slope in slopes) or not any(slope != 0 for slope in slopes):
            raise NotLinearError(
                f"equation {number + 1} is not linear in its highest derivatives, also with "
                f"{', '.join(map(str, new)) or 'none of its derivatives'} as components of their own: there is no "
                "augmentation that makes it so"
            )
        lines.append(f"{found} = 0")
    return (*lines, *(f"{name} - {symbol} = 0" for symbol, name in new.items()))
