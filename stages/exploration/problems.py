"""Functions of a context and an action on finite grids, whose best actions are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from stages.exploration.space import Array

NOISE = 0.1  # standard deviation of one measurement; the values of a function have the standard deviation 1

# Hartmann's functions (Surjanovic and Bingham, Virtual Library of Simulation Experiments): weights, scales, centres.
HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_SCALES = np.array([
    [10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14],
])  # fmt: skip
HARTMANN_CENTRES = 1e-4 * np.array([
    [1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
    [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381],
])  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A function on contexts times actions.

    `contexts`: (contexts, their columns), `actions`: (actions, their columns), all in [0, 1]. `values`: (contexts,
    actions), to maximise, of standard deviation 1. `noise`: the standard deviation of a measurement; 0 for a table of
    measurements.
    """

    name: str
    contexts: Array
    actions: Array
    values: Array
    noise: float = NOISE

    @property
    def points(self) -> Array:
        """A row for every context and action, in the order of `values.ravel()`."""
        repeated = np.repeat(self.contexts, len(self.actions), 0)
        return np.hstack([repeated, np.tile(self.actions, (len(self.contexts), 1))])

    @property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.contexts.shape[1] + self.actions.shape[1])

    def regret(self, chosen: NDArray[np.int64]) -> Array:
        """What each context lacks from its best value if its action is `chosen`."""
        return np.asarray(self.values.max(1) - self.values[np.arange(len(chosen)), chosen])


def branin(x: Array, y: Array) -> Array:
    """Branin's function, negated, of both coordinates in [0, 1]."""
    x, y = 15 * x - 5, 15 * y
    square = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
    return np.asarray(-(square + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10))


def hartmann(points: Array) -> Array:
    """Hartmann's function of the columns of `points` in [0, 1], to maximise; the first ones of the six-dimensional."""
    width = points.shape[1]
    apart = ((points[:, None] - HARTMANN_CENTRES[:, :width]) ** 2 * HARTMANN_SCALES[:, :width]).sum(2)
    return np.asarray(np.exp(-apart) @ HARTMANN_WEIGHTS)


def half_hard(context: Array, action: Array) -> Array:
    """Easy contexts (below 0.5), where all actions are similar, and hard ones with a narrow peak that moves."""
    easy = 0.3 * np.sin(3 * action + context)
    peak = 0.5 + 0.4 * np.sin(9 * context)
    hard = 2 * np.exp(-(((action - peak) / 0.15) ** 2)) + 0.3 * np.sin(15 * action)
    return np.where(context < 0.5, easy, hard)


def _grid(per_dimension: int, dimensions: int) -> Array:
    return np.array(list(product(np.linspace(0, 1, per_dimension), repeat=dimensions)))


def _made(name: str, contexts: Array, actions: Array, function: Callable[[Array], Array]) -> Problem:
    problem = Problem(name, contexts, actions, np.empty((len(contexts), len(actions))))
    values = function(problem.points).reshape(problem.values.shape)
    return Problem(name, contexts, actions, (values - values.mean()) / values.std())


def _scattered(count: int, dimensions: int) -> Array:
    from scipy.stats import qmc

    return np.asarray(qmc.Sobol(dimensions, rng=np.random.default_rng(0)).random(count))


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "branin": lambda: _made("branin", _grid(10, 1), _grid(50, 1), lambda points: branin(points[:, 0], points[:, 1])),
    "hartmann4": lambda: _made("hartmann4", _scattered(16, 2), _grid(12, 2), hartmann),
    "hartmann6": lambda: _made("hartmann6", _scattered(16, 4), _grid(12, 2), hartmann),
    "half_hard": lambda: _made(
        "half_hard", _grid(16, 1), _grid(41, 1), lambda points: half_hard(points[:, 0], points[:, 1])
    ),
}


def table(name: str, contexts: Array, actions: Array, values: Array) -> Problem:
    """A problem from measured values (contexts, actions), which are measured without further noise.

    Columns of contexts and actions are scaled to [0, 1].
    """

    def unit(columns: Array) -> Array:
        low, high = columns.min(0), columns.max(0)
        return np.asarray((columns - low) / np.where(high > low, high - low, 1))

    return Problem(name, unit(contexts), unit(actions), (values - values.mean()) / values.std(), noise=0.0)
