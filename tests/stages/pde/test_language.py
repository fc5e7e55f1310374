"""The language of equations: what it accepts, how it shows the place of a fault, and that nothing is evaluated."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base import StageError
from stages.pde.equation import Equation
from stages.pde.language import LanguageError, Vocabulary, derivatives, parse_equation, parse_expression
from stages.pde.solver import function_of
from stages.pde.symbols import Symbols

VOCABULARY = Vocabulary(("u", "v"), ("t", "x"), ("D", "r1"))


def equation(*texts: str, **fields: Any) -> Equation:
    values: dict[str, Any] = {"components": ("u",), "coordinates": ("t", "x"), "parameters": {"D": {}}}
    return Equation.model_validate({**values, "equations": texts, **fields})


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("u_t - D*u_xz = 0", 11, "'z' is not made of coordinates"),
        ("u_t - E*u_xx = 0", 6, "unknown name 'E'"),
        ("u_t - d1*u = 0", 6, "Did you mean 'r1'?"),
        ("u_t - D*u_xx", 12, "expected '='"),
        ("u_t - D*(u_xx = 0", 14, "expected ')'"),
        ("u_t - D*u_xx = ", 15, "found the end"),
        ("u_t = D; import os", 7, "unexpected ';'"),
        ("__import__ = 0", 0, "unexpected '_'"),
        ("u.real = 0", 1, "unexpected '.'"),
        ("open(u) = 0", 0, "unknown function 'open'"),
        ("u_t = u**u", 7, "an exponent may not contain a component"),
        ("u_t = u**99", 7, "an exponent may be 8 at most"),
        ("u_t = d(u, D)", 11, "not a coordinate"),
        ("u_xxxxx = 0", 7, "order 4 at most"),
        ("(" * 100 + "u" + ")" * 100 + " = 0", 20, "nested"),
        ("-" * 500 + "u = 0", 79, "in a row"),
    ],
)
def test_a_fault_is_shown_at_its_place(text: str, place: int, message: str) -> None:
    with pytest.raises(LanguageError, match=r".*") as caught:
        parse_equation(text, VOCABULARY)
    assert message in str(caught.value)
    assert caught.value.place == place


@given(st.text(alphabet="uvtxD_+-*/^()=.,0123456789 e", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(LanguageError):
        assert derivatives(parse_equation(text, VOCABULARY)) is not None


@given(st.floats(-3, 3), st.floats(0.5, 3))
def test_precedence_is_that_of_mathematics(t: float, x: float) -> None:
    text = "-x**2 + 2*t/x - (t - 1)^2*exp(-x) + 2**-1"
    expected = -(x**2) + 2 * t / x - (t - 1) ** 2 * np.exp(-x) + 0.5
    assert function_of(text, ("t", "x"))(np.array([[t, x]]))[0] == pytest.approx(expected)


def test_a_total_derivative_follows_the_chain_rule() -> None:
    symbols = Symbols(VOCABULARY)
    found = symbols.expression(parse_expression("d(D*u*u_x + x*t, x)", VOCABULARY))
    u, ux, uxx, d, t = sympy.symbols("u u_x u_xx D t", real=True)
    assert sympy.expand(found - (d * ux**2 + d * u * uxx + t)) == 0


def test_mixed_derivatives_have_one_name() -> None:
    assert derivatives(parse_equation("u_tx - u_xt = v", VOCABULARY)) == derivatives(
        parse_equation("u_xt = v", VOCABULARY)
    )


@pytest.mark.parametrize(
    ("text", "linear", "augmented"),
    [
        ("u_t - D*u_xx - x*u = 0", True, ["u_t"]),
        ("u_t + D*u*u_x - u_xx = 0", False, ["u*u_x"]),
        ("u_t - d(D*u*u_x, x) = 0", False, ["ux**2", "ux - u_x = 0", "ux_x"]),
    ],
)
def test_the_augmentation_is_derived(text: str, linear: bool, augmented: list[str]) -> None:
    system = equation(text).system()
    assert system.linear is linear
    for part in augmented:
        assert part in "; ".join(system.augmentation)


@pytest.mark.parametrize("text", ["u_t**2 - D*u = 0", "exp(u_t) = D*u", "u - D = 0"])
def test_an_equation_without_an_augmentation_is_refused(text: str) -> None:
    with pytest.raises(StageError, match="not linear in its highest derivatives"):
        equation(text).system()


def test_a_large_power_is_not_computed() -> None:
    tower = "((9**8)**8)**8"
    with pytest.raises((StageError, OverflowError)):
        equation(f"u_t - D*u*(({tower})**8)**8 = 0").system()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {"D": {"prior": "gamma(1, 2)"}}}, "is not a prior"),
        ({"parameters": {"D": {"prior": "normal(0, -1)"}}}, "impossible numbers"),
        ({"parameters": {"D": {"prior": "normal(0, 1)", "positive": True}}}, "lognormal or a uniform"),
        ({"parameters": {}}, "at least one"),
        ({"parameters": {"u": {}}}, "the name of two things"),
        ({"boundary": {"u": "y=0: 0"}}, "not a boundary value"),
        ({"boundary": {"u": "x=0: 1 +"}}, "column 4"),
        ({"boundary": {"w": "x=0: 0"}}, "not a component"),
        ({"boundary": {"u": "x=zero: 0"}}, "is not a number"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=r".*") as caught:
        equation("u_t - D*u_xx = 0", **fields)
    assert message in str(caught.value)


def test_a_parameter_that_no_equation_has_is_refused() -> None:
    with pytest.raises(StageError, match="no equation has the parameter 'q'"):
        equation("u_t - D*u_xx = 0", parameters={"D": {}, "q": {}}).system()
