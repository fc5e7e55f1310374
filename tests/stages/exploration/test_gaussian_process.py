"""The posterior is that of the textbook's formulas, and its hyper-parameters are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from stages.exploration.gaussian_process import (
    GaussianProcess,
    GridPosterior,
    Hyperparameters,
    _objective,
    default_hyperparameters,
    fit,
    matern,
)
from stages.exploration.space import Array

GROUPS = np.array([0, 1, 1])
PARAMETERS = Hyperparameters((0.4, 0.8), variance=1.3, noise=0.05)


def data(count: int = 12, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.random((count, 3))
    return x, np.sin(5 * x[:, 0]) + x[:, 1] + 0.01 * rng.standard_normal(count)


def process() -> GaussianProcess:
    x, y = data()
    return GaussianProcess(x, y, GROUPS, PARAMETERS, np.linspace(0.5, 2, len(y)), mean=0.7, scale=1.9)


def kernel(left: Array, right: Array) -> float:
    """Matérn 5/2 of two points, term by term."""
    scales = [0.4, 0.8, 0.8]
    r = sum(((a - b) / scale) ** 2 for a, b, scale in zip(left, right, scales, strict=True)) ** 0.5
    return float(1.3 * (1 + 5**0.5 * r + 5 * r * r / 3) * np.exp(-(5**0.5) * r))


def test_the_posterior_is_that_of_dense_inverses() -> None:
    gp = process()
    at = np.random.default_rng(1).random((7, 3))
    covariance = np.array([[kernel(a, b) for b in gp.x] for a in gp.x]) + np.diag(0.05 * gp.relative_noise)
    cross = np.array([[kernel(a, b) for b in gp.x] for a in at])
    inverse = np.linalg.inv(covariance)
    mean, deviation = gp.posterior(at)
    assert mean == pytest.approx(0.7 + cross @ inverse @ (gp.y - 0.7), rel=1e-6)
    assert deviation == pytest.approx(1.9 * np.sqrt(1.3 - np.einsum("ij,jk,ik->i", cross, inverse, cross)), rel=1e-6)


def test_a_hallucinated_mean_keeps_the_mean_and_lowers_the_deviation() -> None:
    gp = process()
    at = np.random.default_rng(2).random((5, 3))
    after = gp.hallucinate(at[0])
    assert after.posterior(at)[0] == pytest.approx(gp.posterior(at)[0])
    assert after.posterior(at)[1][0] < 0.5 * gp.posterior(at)[1][0]
    assert (after.posterior(at)[1] <= gp.posterior(at)[1] + 1e-12).all()


def test_the_gradient_of_the_marginal_likelihood_is_that_of_differences() -> None:
    x, y = data()
    columns = [x[:, :1], x[:, 1:]]  # of the two groups
    squares = np.array([((one[:, None] - one[None]) ** 2).sum(2) for one in columns])
    rest = (squares, y - y.mean(), np.linspace(0.5, 2, len(y)), default_hyperparameters(2).logarithms())
    at = np.log([0.3, 0.9, 1.5, 0.02])
    error = check_grad(lambda p: _objective(p, *rest)[0], lambda p: _objective(p, *rest)[1], at)
    assert error < 1e-4


def test_the_fit_finds_the_noise_and_the_column_that_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 2))
    y = np.sin(8 * x[:, 0]) + 0.2 * rng.standard_normal(80)
    gp = fit(x, y, np.array([0, 1]))
    assert (gp.parameters.noise * gp.scale**2) ** 0.5 == pytest.approx(0.2, rel=0.35)
    assert gp.parameters.length_scales[1] > 3 * gp.parameters.length_scales[0]


def test_joint_samples_have_the_moments_of_the_posterior() -> None:
    gp = process()
    at = np.random.default_rng(3).random((4, 3))
    draws = gp.joint_samples(at, 4000, np.random.default_rng(0))
    mean, deviation = gp.posterior(at)
    assert draws.mean(0) == pytest.approx(mean, abs=0.1)
    assert draws.std(0) == pytest.approx(deviation, rel=0.1)


def test_nothing_observed_is_the_prior() -> None:
    gp = fit(np.empty((0, 3)), np.empty(0), GROUPS)
    mean, deviation = gp.posterior(np.zeros((2, 3)))
    assert mean.tolist() == [0, 0]
    assert deviation.tolist() == [1, 1]
    assert matern(np.zeros((1, 3)), np.zeros((1, 3)), GROUPS, PARAMETERS)[0, 0] == pytest.approx(1.3)


def test_two_equal_points_do_not_stop_the_fit() -> None:
    x = np.zeros((4, 3))
    mean, _ = fit(x, np.array([1.0, 1.0, 1.0, 1.0]), GROUPS).posterior(x[:1])
    assert mean[0] == pytest.approx(1.0)


def test_a_grid_posterior_that_grows_is_the_one_computed_at_once() -> None:
    rng = np.random.default_rng(4)
    x, y, at = rng.random((12, 3)), rng.standard_normal(12), rng.random((7, 3))
    grown = GridPosterior(GaussianProcess(x[:3], y[:3], GROUPS, PARAMETERS, np.ones(3)), at, 12)
    for count in range(4, 13):
        grown.append(x[count - 1], y[:count], float(y[:count].mean()), float(y[:count].std()))
        whole = GaussianProcess(
            x[:count], y[:count], GROUPS, PARAMETERS, np.ones(count), float(y[:count].mean()), float(y[:count].std())
        )
        assert np.allclose(grown.moments(), whole.posterior(at), rtol=1e-9)
        assert np.allclose(grown.white, whole.whitened(at), rtol=1e-9)


def test_an_observation_repeated_in_a_growing_posterior_does_not_break_it() -> None:
    x = np.zeros((1, 3))
    noiseless = replace(PARAMETERS, noise=1e-14)
    grown = GridPosterior(GaussianProcess(x, np.ones(1), GROUPS, noiseless, np.ones(1)), x, 20)
    for count in range(2, 20):
        grown.append(x[0], np.ones(count), 0.0, 1.0)
    assert np.isfinite(grown.moments()).all()
