"""The benchmark of exploration: its measured table is exact, and its rows and table are those of the methods."""

from __future__ import annotations

import pytest

from benchmarks import exploration
from benchmarks.exploration_tables import debug_pretraining
from stages.exploration import contextual_methods
from stages.exploration.intervals import mean_interval


def test_active_exploration_finds_the_best_values_of_the_measured_table() -> None:
    problem = debug_pretraining()
    assert problem.values.shape == (3, 10)
    assert problem.noise == 0
    curve = contextual_methods.explore(problem, "ae_lsvi", (24,), seed=0, initial=6)
    assert curve.worst[0] < 0.05  # standard deviations of the table


def test_the_rows_become_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*exploration.states(2, (1, 2), (30, 60))]
    assert [row["method"] for row in rows] == ["30 states", "60 states"] * 2
    exploration.show(rows, (2,), ("worst", "mean"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "navigation, by candidate states (2 seeds)"
    assert lines[2] == "| method | worst at 2 | mean at 2 | seconds of decisions | of fits |"
    assert lines[4].startswith("| 30 states | ")
    means = exploration.summary(rows)["navigation, by candidate states"]
    assert means["30 states"]["worst"] == pytest.approx((rows[0]["worst"][1] + rows[2]["worst"][1]) / 2, abs=1e-4)


def test_the_interval_is_that_of_students_distribution() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.302653 / 3**0.5)
    assert mean_interval([5.0]) == (5.0, 0.0)
