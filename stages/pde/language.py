"""The language of equations: a text in a closed vocabulary, to a tree of nodes. Nothing in it is evaluated as code.

    equation    = expression "=" expression expression  = term {("+" | "-") term} term        = factor {("*" | "/")
    factor} factor      = ("+" | "-") factor | atom [("**" | "^") factor] atom        = number | name | function "("
    expression ")" | "d" "(" expression "," coordinate ")" | "(" expression ")"

A name is a component (u), a derivative (u_xx), a coordinate or a parameter. d(E, x) is the total derivative of E.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

FUNCTIONS = ("exp", "log", "sin", "cos", "tanh", "sqrt")
TEXT_LIMIT = 2000
DEPTH_LIMIT = 40
ORDER_LIMIT = 4  # of a derivative
EXPONENT_LIMIT = 8

TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z]\w*)|(\*\*|[-+*/^(),=]))")


class LanguageError(ValueError):
    """A fault in a text, with its place."""

    def __init__(self, text: str, place: int, message: str) -> None:
        super().__init__(f"column {place + 1} of {text!r}: {message}")
        self.place = place


@dataclass(frozen=True)
class Vocabulary:
    """The names that a text may use."""

    components: tuple[str, ...]
    coordinates: tuple[str, ...]
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Coordinate:
    name: str


@dataclass(frozen=True)
class Parameter:
    name: str


@dataclass(frozen=True)
class Derivative:
    """A component, differentiated `orders[i]` times along coordinate i."""

    component: str
    orders: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """`operator` is one of + - * / **, or the name of a function with one operand."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class TotalDerivative:
    operand: Node
    coordinate: str


Node = Number | Coordinate | Parameter | Derivative | Operation | TotalDerivative


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, an operator, or "end"
    text: str
    place: int


def parse_equation(text: str, vocabulary: Vocabulary) -> Node:
    """The residual of an equation: its left side minus its right side. Raises LanguageError."""
    parser = _Parser(text, vocabulary)
    left = parser.expression()
    parser.expect("=")
    right = parser.expression()
    parser.expect("end")
    return Operation("-", (left, right))


def parse_expression(text: str, vocabulary: Vocabulary) -> Node:
    """A text without an equals sign. Raises LanguageError."""
    parser = _Parser(text, vocabulary)
    found = parser.expression()
    parser.expect("end")
    return found


def derivative_name(component: str, orders: Sequence[int], coordinates: Sequence[str]) -> str:
    """How a derivative is written: u, u_t, u_xx."""
    suffix = "".join(name * order for name, order in zip(coordinates, orders, strict=True))
    return f"{component}_{suffix}" if suffix else component


def derivatives(node: Node) -> set[Derivative]:
    """Every component and derivative that a tree names."""
    match node:
        case Derivative():
            return {node}
        case Operation(operands=operands):
            return set().union(*map(derivatives, operands))
        case TotalDerivative(operand=operand):
            return derivatives(operand)
    return set()


def _tokens(text: str) -> list[_Token]:
    if len(text) > TEXT_LIMIT:
        raise LanguageError(text[:40] + "...", TEXT_LIMIT, f"longer than {TEXT_LIMIT} characters")
    found, place = [], 0
    while text[place:].strip():
        match = TOKEN.match(text, place)
        if match is None:
            place += len(text[place:]) - len(text[place:].lstrip())
            raise LanguageError(text, place, f"unexpected {text[place]!r}; expected a name, a number or an operator")
        number, name, operator = match.groups()
        kind = "number" if number else "name" if name else operator
        found.append(_Token(kind, match[match.lastindex or 0], match.start(match.lastindex or 0)))
        place = match.end()
    return [*found, _Token("end", "", len(text))]


class _Parser:
    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.text, self.vocabulary = text, vocabulary
        self.tokens = _tokens(text)
        self.depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[0]

    def fault(self, message: str, place: int | None = None) -> LanguageError:
        return LanguageError(self.text, self.next.place if place is None else place, message)

    def take(self) -> _Token:
        return self.tokens.pop(0)

    def expect(self, kind: str) -> _Token:
        if self.next.kind != kind:
            found = repr(self.next.text) if self.next.text else "the end"
            wanted = {"end": "the end or an operator", "name": "a name"}.get(kind, repr(kind))
            raise self.fault(f"found {found}; expected {wanted}")
        return self.take()

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise self.fault(f"nested more than {DEPTH_LIMIT} deep")
        found = self.chain(("+", "-"), lambda: self.chain(("*", "/"), self.factor))
        self.depth -= 1
        return found

    def chain(self, operators: tuple[str, ...], operand) -> Node:  # type: ignore[no-untyped-def]
        found: Node = operand()
        while self.next.kind in operators:
            operator = self.take().kind
            found = Operation(operator, (found, operand()))
        return found

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > 2 * DEPTH_LIMIT:
            raise self.fault("too many signs or powers in a row")
        if self.next.kind in "+-":
            sign = self.take().kind
            operand = self.factor()
            found = operand if sign == "+" else Operation("-", (Number(0), operand))
        else:
            found = self.atom()
            if self.next.kind in ("**", "^"):
                place = self.take().place
                exponent = self.factor()
                if derivatives(exponent):
                    raise self.fault("an exponent may not contain a component", place)
                if isinstance(exponent, Number) and abs(exponent.value) > EXPONENT_LIMIT:
                    raise self.fault(f"an exponent may be {EXPONENT_LIMIT} at most", place)
                found = Operation("**", (found, exponent))
        self.depth -= 1
        return found

    def atom(self) -> Node:
        token = self.next
        if token.kind == "number":
            return Number(self.number())
        if token.kind == "(":
            self.take()
            found = self.expression()
            self.expect(")")
            return found
        name = self.expect("name").text
        if self.next.kind == "(":
            return self.call(name, token.place)
        return self.named(name, token.place)

    def number(self) -> float:
        value = float(self.next.text)
        if abs(value) > 1e100:
            raise self.fault("a number may be 1e100 at most")
        self.take()
        return value

    def call(self, name: str, place: int) -> Node:
        if name not in (*FUNCTIONS, "d"):
            raise self.fault(f"unknown function {name!r}; expected one of {', '.join(FUNCTIONS)}, or d(..., x)", place)
        self.expect("(")
        operand = self.expression()
        found: Node = Operation(name, (operand,))
        if name == "d":
            self.expect(",")
            coordinate = self.expect("name")
            if coordinate.text not in self.vocabulary.coordinates:
                expected = ", ".join(self.vocabulary.coordinates)
                raise self.fault(f"{coordinate.text!r} is not a coordinate; expected {expected}", coordinate.place)
            found = TotalDerivative(operand, coordinate.text)
        self.expect(")")
        return found

    def named(self, name: str, place: int) -> Node:
        known = self.vocabulary
        if name in known.coordinates:
            return Coordinate(name)
        if name in known.parameters:
            return Parameter(name)
        component, _, suffix = name.partition("_")
        if component in known.components:
            return Derivative(component, self.orders(name, suffix, place + len(component) + 1))
        names = (*known.components, *known.coordinates, *known.parameters)
        similar = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        raise self.fault(f"unknown name {name!r}; expected one of {', '.join(names)}, or a derivative.{hint}", place)

    def orders(self, name: str, suffix: str, place: int) -> tuple[int, ...]:
        counts = dict.fromkeys(self.vocabulary.coordinates, 0)
        rest = suffix
        while rest:
            along = max((one for one in counts if rest.startswith(one)), key=len, default=None)
            if along is None:
                expected = ", ".join(counts)
                raise self.fault(f"{name!r}: {rest!r} is not made of coordinates; expected {expected}", place)
            counts[along] += 1
            rest = rest.removeprefix(along)
            place += len(along)
        if sum(counts.values()) > ORDER_LIMIT:
            raise self.fault(f"{name!r}: a derivative may have order {ORDER_LIMIT} at most", place)
        return tuple(counts.values())
