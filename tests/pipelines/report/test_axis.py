"""Axes of plots: where values are, and which marks an axis has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.axis import axis_of

NUMBERS = st.floats(min_value=-1e12, max_value=1e12).map(lambda value: 0.0 if abs(value) < 1e-9 else value)


@given(st.lists(NUMBERS, min_size=1))
def test_every_value_and_every_mark_is_on_the_axis(values: list[float]) -> None:
    axis = axis_of(values)
    places = [axis.place(value) for value in values]
    assert all(place is not None and -1e-9 <= place <= 1 + 1e-9 for place in places)
    assert all(-1e-6 <= place <= 1 + 1e-6 for _, place in axis.marks())
    assert 1 <= len(axis.marks()) <= 25


@given(st.lists(NUMBERS, min_size=2))
def test_places_are_in_the_order_of_the_values(values: list[float]) -> None:
    axis = axis_of(values)
    ordered = [axis.place(value) or 0.0 for value in sorted(values)]
    assert ordered == sorted(ordered)


def test_values_over_decades_are_on_a_logarithmic_axis() -> None:
    axis = axis_of(["1e-4", "1e-3", "1e-2"])
    assert [axis.place(value) for value in ("1e-4", "1e-3", "1e-2")] == pytest.approx([0, 0.5, 1])
    assert [label for label, _ in axis.marks()] == ["0.0001", "0.001", "0.01"]
    assert not axis_of([1, 1000], may_be_logarithmic=False).logarithmic


def test_a_few_values_have_a_mark_each_and_many_have_round_ones() -> None:
    assert [label for label, _ in axis_of([20, 30, 20]).marks()] == ["20", "30"]
    assert [label for label, _ in axis_of(range(98)).marks()] == ["0", "20", "40", "60", "80"]


def test_texts_are_in_their_order() -> None:
    axis = axis_of(["relu", "gelu", "7", "relu"])
    assert axis.marks() == [("relu", 0.0), ("gelu", 0.5), ("7", 1.0)]
    assert axis.place("swish") is None
