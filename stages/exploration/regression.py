"""Kernel ridge regression that grows with its points, exactly or with random features.

Predictions go through whitened columns: `mean` is a product of weights and columns, `deviation` follows from their
squares. A column of the exact regression gets new rows when points are added and keeps the old ones, so the columns of
the first n points are those of an earlier round, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular

from stages.exploration.space import Array

CHUNK_POINTS = 100_000


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
        return np.asarray(np.sqrt(np.maximum(1 - _squares(white), 0)))


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
        return np.asarray(np.sqrt(self.ridge * _squares(white)))


def _squares(white: Array) -> Array:
    """The sum of the squares of each column, without an array of all squares."""
    return np.asarray(np.einsum("ij,ij->j", white, white))


class Columns:
    """The whitened columns of points that predictions are wanted at, brought up to date when they are read.

    They are kept in chunks of consecutive points, so that a million of them never need a second copy.
    """

    def __init__(self, regression: Regression, width: int, together: int = 1) -> None:
        """`together`: this many consecutive points, such as a state with each action, are never divided."""
        self.regression = regression
        self._width = width
        self._most = max(1, CHUNK_POINTS // together) * together
        self._chunks: list[_Chunk] = []

    def add(self, x: Array) -> None:
        while len(x):
            if not self._chunks or len(self._chunks[-1].x) == self._most:
                self._chunks.append(_Chunk(np.empty((0, self._width)), np.empty((0, 0)), -1))
            last = self._chunks[-1]
            room = self._most - len(last.x)
            last.add(self.regression, x[:room])
            x = x[room:]

    def chunks(self) -> Iterator[Array]:
        """The columns, some consecutive ones at a time."""
        for chunk in self._chunks:
            yield chunk.updated(self.regression)

    @property
    def white(self) -> Array:
        """All columns at once."""
        found = list(self.chunks())
        return found[0] if len(found) == 1 else np.hstack(found) if found else np.empty((self.regression.count, 0))

    def __len__(self) -> int:
        return sum(len(chunk.x) for chunk in self._chunks)


@dataclass
class _Chunk:
    """Points, their whitened columns, and how many points the regression had when these were computed."""

    x: Array
    white: Array
    count: int

    def add(self, regression: Regression, x: Array) -> None:
        old = self.updated(regression)
        new = regression.extend(np.empty((0, len(x))), x)
        self.x = np.vstack([self.x, x])
        self.white = np.hstack([old, new]) if old.shape[1] else new

    def updated(self, regression: Regression) -> Array:
        if self.count != regression.count:
            self.white = regression.extend(self.white, self.x) if len(self.x) else self.white
            self.count = regression.count
        return self.white
