"""Kernel ridge regression that grows with its points, exactly or with random features.

Predictions go through whitened columns: `mean` is a product of weights and columns, `deviation` follows from their
squares. A column of the exact regression gets new rows when points are added and keeps the old ones, so the columns of
the first n points are those of an earlier round, and nothing is computed twice.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular

from stages.exploration.space import Array


class Regression(Protocol):
    """A posterior with a kernel of variance 1 and the ridge as the variance of the noise."""

    @property
    def count(self) -> int:
        """How many points there are."""

    def add(self, x: Array) -> None:
        """Add points, a row each."""

    def extend(self, white: Array, x: Array) -> Array:
        """The whitened columns of the rows of `x`, from those (or none) of fewer points."""

    def weights(self, y: Array) -> Array:
        """What the means of targets `y` at the points are computed with."""

    def deviation(self, white: Array) -> Array:
        """The standard deviation at the points of whitened columns."""


def squared_exponential(left: Array, right: Array) -> Array:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0)))


class KernelRegression:
    """Exact, with the squared exponential kernel; memory and time of a round grow with the number of points."""

    def __init__(self, columns: int, length_scale: float, ridge: float) -> None:
        self.length_scale, self.ridge = length_scale, ridge
        self.x: Array = np.empty((0, columns))
        self.factor: Array = np.empty((0, 0))

    @property
    def count(self) -> int:
        return len(self.x)

    def add(self, x: Array) -> None:
        x = x / self.length_scale
        before = self.count
        side = (
            solve_triangular(self.factor, squared_exponential(self.x, x), lower=True)
            if before
            else np.empty((0, len(x)))
        )
        corner = squared_exponential(x, x) + self.ridge * np.eye(len(x)) - side.T @ side
        factor = np.zeros((before + len(x),) * 2)
        factor[:before, :before] = self.factor
        factor[before:, :before] = side.T
        factor[before:, before:] = np.linalg.cholesky(corner)
        self.factor, self.x = factor, np.vstack([self.x, x])

    def extend(self, white: Array, x: Array) -> Array:
        known = len(white)
        if known == self.count:
            return white
        cross = squared_exponential(self.x[known:], x / self.length_scale) - self.factor[known:, :known] @ white
        return np.vstack([white, solve_triangular(self.factor[known:, known:], cross, lower=True)])

    def weights(self, y: Array) -> Array:
        return np.asarray(solve_triangular(self.factor, y, lower=True))

    def deviation(self, white: Array) -> Array:
        return np.asarray(np.sqrt(np.maximum(1 - (white**2).sum(0), 0)))


class FeatureRegression:
    """With random Fourier features of the squared exponential kernel (Rahimi and Recht 2007): cost does not grow."""

    def __init__(self, columns: int, length_scale: float, ridge: float, features: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ridge, self.count = ridge, 0
        self.frequencies = rng.standard_normal((columns, features // 2)) / length_scale
        self.moments = ridge * np.eye(2 * (features // 2))
        self.factor = np.linalg.cholesky(self.moments)
        self.phi: Array = np.empty((0, len(self.moments)))

    def _features(self, x: Array) -> Array:
        angles = x @ self.frequencies
        return np.asarray(np.hstack([np.cos(angles), np.sin(angles)]) / len(self.frequencies.T) ** 0.5)

    def add(self, x: Array) -> None:
        phi = self._features(x)
        self.moments = self.moments + phi.T @ phi
        self.factor = np.linalg.cholesky(self.moments)
        self.phi = np.vstack([self.phi, phi])
        self.count += len(x)

    def extend(self, white: Array, x: Array) -> Array:
        return np.asarray(solve_triangular(self.factor, self._features(x).T, lower=True))

    def weights(self, y: Array) -> Array:
        return np.asarray(solve_triangular(self.factor, self.phi.T @ y, lower=True))

    def deviation(self, white: Array) -> Array:
        return np.asarray(np.sqrt(self.ridge * (white**2).sum(0)))


class Columns:
    """The whitened columns of points that predictions are wanted at, brought up to date when they are read."""

    def __init__(self, regression: Regression, width: int) -> None:
        self.regression = regression
        self._x: Array = np.empty((0, width))
        self._white: Array = np.empty((0, 0))
        self._count = -1  # of the regression's points when `_white` was computed

    def add(self, x: Array) -> None:
        if not len(x):
            return
        old = self.white
        self._x = np.vstack([self._x, x])
        new = self.regression.extend(np.empty((0, len(x))), x)
        self._white = np.hstack([old, new]) if old.shape[1] else new

    @property
    def white(self) -> Array:
        if self._count != self.regression.count:
            self._white = self.regression.extend(self._white, self._x) if len(self._x) else self._white
            self._count = self.regression.count
        return self._white

    def __len__(self) -> int:
        return len(self._x)
