"""From the trees of the equation language to SymPy, and from SymPy to numbers of NumPy or PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from types import ModuleType
from typing import Any

import sympy

from stages.pde import language
from stages.pde.language import Derivative, Node

Expression = Any  # of SymPy, which has no types
SIZE_LIMIT = 3000  # operations of an expression


class Symbols:
    """The SymPy symbols of a vocabulary: real, one for each derivative that occurs."""

    def __init__(self, vocabulary: language.Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.coordinates = {name: sympy.Symbol(name, real=True) for name in vocabulary.coordinates}
        self.parameters = {name: sympy.Symbol(name, real=True) for name in vocabulary.parameters}
        self.derivatives: dict[Expression, Derivative] = {}

    def derivative(self, component: str, orders: Sequence[int]) -> Expression:
        symbol = sympy.Symbol(language.derivative_name(component, orders, self.vocabulary.coordinates), real=True)
        self.derivatives[symbol] = Derivative(component, tuple(orders))
        return symbol

    def expression(self, node: Node) -> Expression:
        """A tree as a SymPy expression. Raises ValueError if it becomes too large or is not finite."""
        found = self._convert(node)
        if found.count_ops() > SIZE_LIMIT:
            raise ValueError(f"the expression has more than {SIZE_LIMIT} operations")
        if found.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I):
            raise ValueError("the expression is not finite and real")
        return found

    def _convert(self, node: Node) -> Expression:
        match node:
            case language.Number(value=value):
                return sympy.Integer(int(value)) if value == int(value) and abs(value) < 1e6 else sympy.Float(value)
            case language.Coordinate(name=name):
                return self.coordinates[name]
            case language.Parameter(name=name):
                return self.parameters[name]
            case Derivative(component=component, orders=orders):
                return self.derivative(component, orders)
            case language.TotalDerivative(operand=operand, coordinate=name):
                return self.total_derivative(self._convert(operand), name)
        operands = [self._convert(one) for one in node.operands]
        if node.operator == "**" and all(one.is_number for one in operands):
            return sympy.Float(float(operands[0]) ** float(operands[1]))  # not a power of exact integers
        return OPERATIONS[node.operator](*operands)

    def total_derivative(self, expression: Expression, coordinate: str) -> Expression:
        """d/dx along a coordinate: through it, and through every component that depends on it. Raises ValueError."""
        axis = self.vocabulary.coordinates.index(coordinate)
        found = sympy.diff(expression, self.coordinates[coordinate])
        for symbol in sorted(expression.free_symbols & set(self.derivatives), key=str):
            each = self.derivatives[symbol]
            orders = tuple(order + (place == axis) for place, order in enumerate(each.orders))
            if sum(orders) > language.ORDER_LIMIT:
                raise ValueError(f"d(..., {coordinate}) has a derivative of order {sum(orders)}")
            found += sympy.diff(expression, symbol) * self.derivative(each.component, orders)
        if found.count_ops() > SIZE_LIMIT:
            raise ValueError(f"the expression has more than {SIZE_LIMIT} operations")
        return found


OPERATIONS: dict[str, Callable[..., Expression]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    **{name: getattr(sympy, name) for name in language.FUNCTIONS},
}


def evaluate(expression: Expression, values: Mapping[Expression, Any], library: ModuleType) -> Any:
    """The value of an expression, given those of its symbols: arrays or tensors of `library` (numpy, torch), or
    numbers. A value that does not depend on an array is a number."""
    return _compiled(expression, library)(values)


@lru_cache(maxsize=4096)
def _compiled(expression: Expression, library: ModuleType) -> Callable[[Mapping[Expression, Any]], Any]:
    """The tree as nested functions: asking SymPy what a node is takes longer than computing its value."""
    if expression.is_Symbol:
        return lambda values: values[expression]
    if expression.is_number:
        number = float(expression)
        return lambda values: number
    operands = [_compiled(one, library) for one in expression.args]
    if expression.is_Add:
        return lambda values: reduce(lambda a, b: a + b, [one(values) for one in operands])
    if expression.is_Mul:
        return lambda values: reduce(lambda a, b: a * b, [one(values) for one in operands])
    if expression.is_Pow:
        base, power = operands
        if expression.exp.is_Integer:
            integer = int(expression.exp)
            return lambda values: base(values) ** integer
        return lambda values: base(values) ** power(values)
    name = expression.func.__name__
    scalar, elementwise = getattr(math, name), getattr(library, name)

    def applied(values: Mapping[Expression, Any]) -> Any:
        value = operands[0](values)
        return scalar(value) if isinstance(value, float) else elementwise(value)

    return applied
