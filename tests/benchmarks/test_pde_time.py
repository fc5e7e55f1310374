"""The benchmarks of the equations, at a size of seconds."""

from __future__ import annotations

import pytest

from benchmarks import pde_fields, pde_time


def test_the_methods_agree_on_the_parameters_and_are_timed() -> None:
    row = pde_time.measured("lidar", (8, 14))
    assert row["size"] == "8x14"
    assert row["values"] == 112
    for name, truth in pde_time.EVERY["lidar"]["parameters"].items():
        for method in ("constrained", "least_squares"):
            estimate, sd = row[method][name]
            assert abs(estimate - truth) < 4 * sd, (method, name)
    assert 0 < row["least_squares_s"] < row["mcmc_s"]
    assert row["constrained_s"] > 0


def test_a_replicate_is_compared_with_the_truth() -> None:
    found = pde_fields.fit(pde_fields.simulator("heat", {}), 0)
    assert found["covered"] == {"D": True}
    assert abs(found["errors"]["D"]) < 0.2
    assert found["fields"]["u"] < 0.05
    shown = pde_fields.row("heat", [found, {**found, "errors": {"D": -found["errors"]["D"]}}])
    assert shown["replicates"] == 2
    assert shown["bias"]["D"] == pytest.approx(0)
    assert shown["rmse"]["D"] == pytest.approx(abs(found["errors"]["D"]))
    assert shown["covered"] == {"D": 2}
