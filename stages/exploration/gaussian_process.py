"""Gaussian-process regression in float64, with hyper-parameters that maximise the marginal likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from stages.exploration.space import Array

JITTER = 1e-10  # added to the kernel's diagonal, relative to the signal's variance
LENGTH_SCALE_SPREAD = 1.0  # standard deviation of the logarithm of a length scale in its prior
VARIANCE_SPREAD = 1.0
NOISE_MEAN, NOISE_SPREAD = np.log(1e-2), 1.5  # of the logarithm of the noise variance, for standardised observations
BOUND = 7.0  # logarithms of hyper-parameters stay within this distance of 0, those of the noise within twice it


@dataclass(frozen=True)
class Hyperparameters:
    """Of the kernel and the noise, for observations with mean 0 and variance 1."""

    length_scales: tuple[float, ...]  # one for each group of columns
    variance: float = 1.0
    noise: float = 1e-2  # variance of one observation

    def logarithms(self) -> Array:
        return np.log([*self.length_scales, self.variance, self.noise])


def default_hyperparameters(groups: int) -> Hyperparameters:
    return Hyperparameters((0.5 * max(groups, 1) ** 0.5,) * groups)


def matern(left: Array, right: Array, groups: NDArray[np.int64], parameters: Hyperparameters) -> Array:
    """The Matérn 5/2 kernel with a length scale for each group of columns: (rows of left, rows of right)."""
    scale = np.array(parameters.length_scales)[groups]
    left, right = left / scale, right / scale
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    distance = np.sqrt(5 * np.maximum(squares, 0))
    return np.asarray(parameters.variance * (1 + distance + distance**2 / 3) * np.exp(-distance))


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior after observations `y` at the rows of `x`.

    `groups`: the group of each column. `relative_noise`: the noise variance of each observation as a multiple of
    `parameters.noise` (1 / n for a mean of n equal measurements). `mean` and `scale` standardise the observations.
    """

    x: Array
    y: Array
    groups: NDArray[np.int64]
    parameters: Hyperparameters
    relative_noise: Array
    mean: float = 0.0
    scale: float = 1.0

    @cached_property
    def factor(self) -> Array:
        """The lower Cholesky factor of the covariance of the observations."""
        covariance = matern(self.x, self.x, self.groups, self.parameters)
        diagonal = self.parameters.noise * self.relative_noise + JITTER * self.parameters.variance
        return np.asarray(np.linalg.cholesky(covariance + np.diag(diagonal)))

    @cached_property
    def weights(self) -> Array:
        """The standardised observations, whitened: the factor's inverse times them."""
        return np.asarray(solve_triangular(self.factor, (self.y - self.mean) / self.scale, lower=True))

    def whitened(self, x: Array) -> Array:
        """The factor's inverse times the covariance of observations and the rows of `x`: (observations, rows)."""
        covariance = matern(self.x, x, self.groups, self.parameters)
        return np.asarray(solve_triangular(self.factor, covariance, lower=True))

    def posterior(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, without the noise, of the function at the rows of `x`."""
        white = self.whitened(x) if len(self.x) else np.empty((0, len(x)))
        return self.moments(white, (white**2).sum(0))

    def moments(self, white: Array, explained: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at points. `white`: whitened for them; `explained`: its squares, summed."""
        if not len(self.x):
            return np.full(len(explained), self.mean), np.full(
                len(explained), self.scale * self.parameters.variance**0.5
            )
        variance = np.maximum(self.parameters.variance - explained, 0)
        return self.mean + self.scale * (self.weights @ white), self.scale * np.sqrt(variance)

    def joint_samples(self, x: Array, count: int, rng: np.random.Generator, white: Array | None = None) -> Array:
        """Draws of the function at the rows of `x` together: (count, rows). `white`: `whitened(x)`, where known."""
        covariance = matern(x, x, self.groups, self.parameters)
        if white is None:
            white = self.whitened(x) if len(self.x) else np.empty((0, len(x)))
        covariance -= white.T @ white
        mean, _ = self.moments(white, np.zeros(len(x)))
        covariance[np.diag_indices_from(covariance)] += 1e-8 * self.parameters.variance
        try:
            root = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:  # not positive definite by rounding: several times slower, but it always works
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
        return np.asarray(mean + self.scale * rng.standard_normal((count, len(x))) @ root.T)

    def appended(self, x: Array, y: Array, mean: float, scale: float) -> GaussianProcess:
        """With one more observation, at the row `x`, and the same hyper-parameters. `y` [observations + 1] are all of
        them, which `mean` and `scale` standardise. The factor grows by a row instead of being computed again."""
        row = solve_triangular(self.factor, matern(self.x, x[None], self.groups, self.parameters)[:, 0], lower=True)
        own = self.parameters.variance * (1 + JITTER) + self.parameters.noise
        rest = max(own - float(row @ row), JITTER * self.parameters.variance)
        made = GaussianProcess(
            np.vstack([self.x, x]), y, self.groups, self.parameters, np.append(self.relative_noise, 1.0), mean, scale
        )
        made.__dict__["factor"] = np.block([[self.factor, np.zeros((len(row), 1))], [row, np.sqrt(rest)]])
        return made

    def hallucinate(self, x: Array) -> GaussianProcess:
        """With the posterior mean as an observation at the row `x`: the mean stays, the deviation becomes smaller."""
        mean, _ = self.posterior(x[None])
        return GaussianProcess(
            np.vstack([self.x, x]), np.append(self.y, mean), self.groups, self.parameters,
            np.append(self.relative_noise, 1.0), self.mean, self.scale,
        )  # fmt: skip

    def information_gain(self) -> float:
        """Of the observations about the function, in nats: half the log determinant of I + K / noise."""
        if not len(self.x):
            return 0.0
        noise = np.log(self.parameters.noise * self.relative_noise + JITTER * self.parameters.variance)
        return float(np.log(np.diag(self.factor)).sum() - 0.5 * noise.sum())


class GridPosterior:
    """The posterior at fixed points. A further observation takes O(observations x points) instead of their square."""

    def __init__(self, gp: GaussianProcess, points: Array, most_observations: int) -> None:
        self.gp = gp
        self._points = points
        self._white = np.empty((most_observations, len(points)))
        self._white[: len(gp.x)] = gp.whitened(points)
        self._explained = (self.white**2).sum(0)

    @property
    def white(self) -> Array:
        """`gp.whitened(points)`."""
        return self._white[: len(self.gp.x)]

    def append(self, x: Array, y: Array, mean: float, scale: float) -> None:
        """Add an observation: see `GaussianProcess.appended`."""
        before = self.white
        self.gp = self.gp.appended(x, y, mean, scale)
        covariance = matern(x[None], self._points, self.gp.groups, self.gp.parameters)[0]
        last = (covariance - self.gp.factor[-1, :-1] @ before) / self.gp.factor[-1, -1]
        self._white[len(before)] = last
        self._explained += last**2

    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation at every point."""
        return self.gp.moments(self.white, self._explained)


def fit(
    x: Array,
    y: Array,
    groups: NDArray[np.int64],
    relative_noise: Array | None = None,
    start: Hyperparameters | None = None,
) -> GaussianProcess:
    """The posterior with the hyper-parameters of largest marginal likelihood times a weak log-normal prior.

    Fewer than three observations leave the defaults. The search starts from `start`, where given, and the defaults.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    noise = np.ones(len(y)) if relative_noise is None else relative_noise
    mean = float(y.mean()) if len(y) else 0.0
    scale = (float(y.std()) if len(y) > 1 else 0.0) or 1.0
    default = default_hyperparameters(count)
    best = start or default
    if len(y) >= 3:
        standard = (y - mean) / scale
        squares = [((x[:, None, groups == group] - x[None, :, groups == group]) ** 2).sum(2) for group in range(count)]
        bounds = [(-BOUND, BOUND)] * (count + 1) + [(-2 * BOUND, BOUND)]
        centre = default.logarithms()
        tries = [
            minimize(
                _objective, one.logarithms(), (np.array(squares), standard, noise, centre),
                jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60},
            )
            for one in {default, start or default}
        ]  # fmt: skip
        found = np.exp(min(tries, key=lambda one: float(one.fun)).x)
        best = Hyperparameters(tuple(map(float, found[:count])), float(found[count]), float(found[count + 1]))
    return GaussianProcess(x, y, groups, best, noise, mean, scale)


def _objective(
    logarithms: Array, squares: Array, y: Array, relative_noise: Array, centre: Array
) -> tuple[float, Array]:
    """The negative log posterior of hyper-parameters and its gradient, both with respect to their logarithms.

    `squares`: (groups, n, n), squared differences of the observations in each group of columns. The marginal
    likelihood is equation 2.30 of Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; its gradient
    is their equation 5.9.
    """
    scaled = squares * np.exp(-2 * logarithms[:-2])[:, None, None]
    variance, noise = np.exp(logarithms[-2:])
    distance = np.sqrt(5 * scaled.sum(0))
    decay = variance * np.exp(-distance)
    kernel = decay * (1 + distance + distance**2 / 3)
    covariance = kernel + np.diag(noise * relative_noise + JITTER * variance)
    try:
        factor = cho_factor(covariance, lower=True)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros_like(logarithms)
    inverse_y = cho_solve(factor, y)
    inner = cho_solve(factor, np.eye(len(y))) - np.outer(inverse_y, inverse_y)
    spread = np.array([LENGTH_SCALE_SPREAD] * len(squares) + [VARIANCE_SPREAD, NOISE_SPREAD])
    centre = np.append(centre[:-1], NOISE_MEAN)
    apart = (logarithms - centre) / spread
    value = 0.5 * y @ inverse_y + np.log(np.diag(factor[0])).sum() + 0.5 * (apart**2).sum()
    by_distance = 5 / 3 * decay * (1 + distance)
    gradient = np.array([
        *(0.5 * (inner * by_distance * one).sum() for one in scaled),
        0.5 * (inner * kernel).sum(),
        0.5 * noise * (np.diag(inner) * relative_noise).sum(),
    ])  # fmt: skip
    return float(value), gradient + apart / spread
