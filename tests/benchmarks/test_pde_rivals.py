"""The other methods of the LIDAR benchmark: estimates on a known solution, and the sampler on a known density."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import pde_rivals

D, S, A = 0.5, 0.1, -0.05
POINTS = np.stack(np.meshgrid(np.linspace(1, 5, 10), np.linspace(0, 20, 24), indexing="ij"), axis=-1).reshape(-1, 2)


def values(noise: float) -> np.ndarray:
    """A Gaussian that spreads, drifts and decays: a solution of u_t = D u_xx + S u_x + A u."""
    t, x = POINTS.T
    width = 4 * D * t + 3.0
    found: np.ndarray = np.exp(A * t - (x - 10 + S * t) ** 2 / width) / np.sqrt(width)
    return found + noise * np.random.default_rng(5).standard_normal(len(t))


@pytest.mark.parametrize("method", [pde_rivals.edges_estimated, pde_rivals.cascading])
def test_a_method_finds_the_parameters_within_its_intervals(
    method: Callable[..., pde_rivals.Fitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pde_rivals, "SPLINE_TIMES", 9)
    monkeypatch.setattr(pde_rivals, "SPLINE_PLACES", 22)
    estimate, deviations = method(POINTS, values(2e-3), np.array([0.4, 0.05, -0.02]))
    assert np.all(np.abs(estimate - [D, S, A]) < 4 * deviations + 0.01 * np.abs([D, S, A]))
    assert deviations[0] < 0.1 * D


def test_adaptive_metropolis_has_the_moments_of_its_density() -> None:
    covariance = np.array([[1.0, 0.8], [0.8, 2.0]])
    precision = np.linalg.inv(covariance)
    states, accepted = pde_rivals.metropolis(
        lambda x: float(-0.5 * x @ precision @ x), np.zeros(2), np.diag([0.1, 0.1]), 6000, 0
    )
    np.testing.assert_allclose(np.cov(states.T), covariance, rtol=0.35)
    assert 0.2 < accepted < 0.6
