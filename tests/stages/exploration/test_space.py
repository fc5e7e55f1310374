"""Parameters keep to their values, and their columns measure what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.exploration.space import (
    Choice,
    Condition,
    Interval,
    Parameter,
    Space,
    Value,
    active,
    candidates,
    neighbours,
)

OPTIMIZER = Parameter("optimizer", Choice(("sgd", "adam")))
MOMENTUM = Parameter("momentum", Interval(0.0, 1.0), Condition("optimizer", ("sgd",)))
RATE = Parameter("rate", Interval(1e-4, 1e-2, log=True))
LAYERS = Parameter("layers", Interval(1, 4, integer=True))


@given(unit=st.floats(0, 1), low=st.floats(1e-6, 1e3), factor=st.floats(1.01, 1e6), log=st.booleans())
def test_an_interval_keeps_to_its_bounds_and_encodes_what_it_decodes(
    unit: float, low: float, factor: float, log: bool
) -> None:
    domain = Interval(low, low * factor, log=log)
    value = domain.value(unit)
    assert isinstance(value, float)
    assert domain.low <= value <= domain.high
    assert domain.encode(value)[0] == pytest.approx(unit, abs=1e-3 if factor > 1.1 else 0.1)


@given(unit=st.floats(0, 1))
def test_whole_numbers_are_whole_and_within_the_interval(unit: float) -> None:
    assert Interval(0.5, 3.5, integer=True).value(unit) in (1, 2, 3)


def test_the_logarithmic_scale_puts_the_geometric_mean_in_the_middle() -> None:
    assert RATE.domain.value(0.5) == pytest.approx(1e-3)
    assert RATE.domain.encode(1e-3) == [pytest.approx(0.5)]


def test_unordered_options_are_equally_far_apart_and_ordered_ones_are_not() -> None:
    x = Space((), (Parameter("a", Choice(("x", "y", "z"))),)).encode([{"a": "x"}, {"a": "y"}, {"a": "z"}])
    assert np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(3, 1)] == pytest.approx(1.0)
    ordered = Choice((8, 16, 32), ordered=True)
    assert [ordered.encode(one) for one in (8, 16, 32)] == [[0.0], [0.5], [1.0]]


def test_columns_of_one_parameter_share_a_group() -> None:
    assert Space((OPTIMIZER,), (RATE, LAYERS)).groups().tolist() == [0, 0, 1, 2]


def test_a_conditional_parameter_is_there_only_where_it_is_active() -> None:
    values: dict[str, Value] = {"optimizer": "adam", "momentum": 0.9}
    assert active((OPTIMIZER, MOMENTUM), values) == {"optimizer": "adam"}
    assert active((OPTIMIZER, MOMENTUM), {**values, "optimizer": "sgd"}) == {"optimizer": "sgd", "momentum": 0.9}
    found = candidates((OPTIMIZER, MOMENTUM), 32, seed=0)
    assert sum(one["optimizer"] == "adam" for one in found) == 1  # all with adam are the same
    assert all(("momentum" in one) == (one["optimizer"] == "sgd") for one in found)


def test_a_context_decides_whether_an_action_is_active() -> None:
    assert candidates((MOMENTUM,), 8, seed=0, given={"optimizer": "adam"}) == [{}]
    assert len(candidates((MOMENTUM,), 8, seed=0, given={"optimizer": "sgd"})) == 8


def test_a_small_finite_space_is_listed_and_a_large_one_sampled() -> None:
    assert len(candidates((OPTIMIZER, LAYERS), 8, seed=0)) == 8
    assert len(candidates((OPTIMIZER, LAYERS), 7, seed=0)) <= 7
    assert len(candidates((RATE,), 100, seed=0)) == 100


def test_neighbours_stay_near() -> None:
    around: dict[str, Value] = {"optimizer": "sgd", "momentum": 0.5, "layers": 2}
    found = neighbours((OPTIMIZER, MOMENTUM, LAYERS), around, 50, np.random.default_rng(0))
    distances = [abs(float(one["momentum"] or 0) - 0.5) for one in found if "momentum" in one]
    assert np.median(distances) < 0.1
    assert {one["layers"] for one in found} <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interval(2, 1), "smaller one first"),
        (lambda: Interval(0, 1, log=True), "positive"),
        (lambda: Choice((1, 1)), "none twice"),
        (lambda: Space((RATE,), (RATE,)), "rate is there twice"),
        (lambda: Space((), (MOMENTUM, OPTIMIZER)), "stands before"),
        (lambda: Space((), ()), "no action"),
        (
            lambda: Space((), (OPTIMIZER, Parameter("b", Interval(0, 1), Condition("optimizer", ("lion",))))),
            "'lion'; expected one of",
        ),
    ],
)
def test_what_cannot_be_explored_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
