"""Other methods for the parameters of the LIDAR equation u_t = D u_xx + S u_x + A u, for `benchmarks/pde.py`.

- least squares, edges estimated: Crank-Nicolson on the observed range; its initial profile and its edge values are
  splines with unknown coefficients. The field is linear in these, so they are eliminated for every trial of (D, S, A)
  (variable projection, Golub and Pereyra, 1973).
- parameter cascading: a tensor product of B-splines, penalised by the equation's residual; its coefficients are a
  function of (D, S, A), which minimise the misfit alone (Ramsay et al., 2007; for this equation, Xun et al., 2013). The
  weight of the penalty has the least generalised cross-validation score.
- solver-based MCMC: adaptive Metropolis (Haario et al., 2001) on the likelihood of a solver.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.linalg import cho_factor, cho_solve, solve_banded
from scipy.optimize import least_squares

Array = NDArray[np.float64]
Fitted = tuple[Array, Array]  # estimates and standard deviations

PROFILE_SPLINES, EDGE_SPLINES = 26, 8  # of the initial profile, and of each edge over time
CELLS, STEPS = 2, 10  # of Crank-Nicolson: cells between two observed places, steps between two times
SPLINE_TIMES, SPLINE_PLACES = 16, 34  # of parameter cascading
PENALTIES = (1e-1, 1e0, 1e1, 1e2, 1e3)  # relative to one observation


def splines(points: Array, low: float, high: float, count: int, degree: int, order: int = 0) -> Array:
    """The derivatives of `order` of `count` B-splines with equidistant knots at points [n]: [n, count]."""
    knots = np.concatenate([np.full(degree, low), np.linspace(low, high, count - degree + 1), np.full(degree, high)])
    basis = BSpline(knots, np.eye(count), degree)
    found: Array = (basis.derivative(order) if order else basis)(points)
    return found


def crank_nicolson(theta: Array, times: Array, places: Array) -> Array:
    """The fields of every spline of the initial profile and of both edges, at times and places:
    [times * places, splines]."""
    d, s, a = theta
    nodes = np.linspace(places[0], places[-1], CELLS * (len(places) - 1) + 1)
    h, n = nodes[1] - nodes[0], len(nodes)
    below, on, above = d / h**2 - s / (2 * h), a - 2 * d / h**2, d / h**2 + s / (2 * h)
    total = PROFILE_SPLINES + 2 * EDGE_SPLINES
    state = np.zeros((n, total))
    state[:, :PROFILE_SPLINES] = splines(nodes, nodes[0], nodes[-1], PROFILE_SPLINES, 3)
    first, second = PROFILE_SPLINES, PROFILE_SPLINES + EDGE_SPLINES
    found = [state[::CELLS].copy()]
    for before, after in pairwise(times):
        step = (after - before) / STEPS
        banded = np.zeros((3, n))
        banded[0, 2:], banded[1], banded[2, :-2] = -step / 2 * above, 1 - step / 2 * on, -step / 2 * below
        banded[1, 0] = banded[1, -1] = 1.0
        for number in range(STEPS):
            right = state.copy()
            right[1:-1] += step / 2 * (below * state[:-2] + on * state[1:-1] + above * state[2:])
            time = before + (number + 1) * step
            right[0], right[-1] = 0.0, 0.0
            edge = splines(np.array([time]), times[0], times[-1], EDGE_SPLINES, 3)[0]
            right[0, first:second], right[-1, second:] = edge, edge
            state = solve_banded((1, 1), banded, right)
        found.append(state[::CELLS].copy())
    fields: Array = np.stack(found).reshape(len(times) * len(places), total)
    return fields


def edges_estimated(points: Array, values: Array, start: Array) -> Fitted:
    """Least squares through Crank-Nicolson; the initial profile and the edges are estimated with the parameters.
    `points` [n, 2] of a complete grid in the order of time and place, `values` [n]."""
    times, places = np.unique(points[:, 0]), np.unique(points[:, 1])

    def residual(theta: Array) -> Array:
        fields = crank_nicolson(theta, times, places)
        coefficients = np.linalg.lstsq(fields, values, rcond=1e-8)[0]
        found: Array = fields @ coefficients - values
        return found

    return _fit(residual, start, len(values) - PROFILE_SPLINES - 2 * EDGE_SPLINES)


def cascading(points: Array, values: Array, start: Array) -> Fitted:
    """Parameter cascading. `points` as for `edges_estimated`."""
    times, places = np.unique(points[:, 0]), np.unique(points[:, 1])

    def tensor(order_time: int, order_place: int, t: Array, x: Array) -> Array:
        along_time = splines(t, times[0], times[-1], SPLINE_TIMES, 4, order_time)
        along_place = splines(x, places[0], places[-1], SPLINE_PLACES, 4, order_place)
        found: Array = np.asarray(np.kron(along_time, along_place), np.float64)
        return found

    functions = tensor(0, 0, times, places)
    dense = (np.linspace(times[0], times[-1], 2 * len(times)), np.linspace(places[0], places[-1], 2 * len(places)))
    # u_t - D u_xx - S u_x - A u at the points of the quadrature.
    terms = [tensor(*orders, *dense) for orders in ((1, 0), (0, 2), (0, 1), (0, 0))]
    products = np.stack([[one.T @ other for other in terms] for one in terms]) * (len(values) / len(terms[0]))
    gram, right = functions.T @ functions, functions.T @ values

    def factor(theta: Array, penalty: float) -> Any:
        weights = np.array([1.0, -theta[0], -theta[1], -theta[2]])
        matrix = gram + penalty * np.tensordot(np.outer(weights, weights), products, axes=2)
        return cho_factor(matrix + 1e-10 * np.diag(np.diag(matrix)))

    def residual(theta: Array, penalty: float) -> Array:
        found: Array = functions @ cho_solve(factor(theta, penalty), right) - values
        return found

    best: tuple[float, Fitted] | None = None
    for penalty in PENALTIES:
        start, deviations = _fit(partial(residual, penalty=penalty), start, len(values))
        freedom = float(np.trace(cho_solve(factor(start, penalty), gram)))
        score = float(np.sum(residual(start, penalty) ** 2)) / (len(values) - freedom) ** 2
        if best is None or score < best[0]:
            spread = np.sqrt((len(values) - len(start)) / (len(values) - freedom))
            best = score, (start, deviations * spread)
    assert best is not None
    return best[1]


def metropolis(
    log_density: Callable[[Array], float], start: Array, covariance: Array, steps: int, seed: int
) -> tuple[Array, float]:
    """Adaptive Metropolis from `start`: the second half of its states, and the share of accepted steps."""
    generator = np.random.default_rng(seed)
    at, value, width = start, log_density(start), 2.38 / np.sqrt(len(start))
    lower = width * np.linalg.cholesky(covariance)
    states, accepted = np.empty((steps, len(start))), 0
    for number in range(steps):
        if number >= 200 and number % 50 == 0 and number < steps // 2:
            lower = width * np.linalg.cholesky(np.cov(states[number // 2 : number].T))
        trial = at + lower @ generator.standard_normal(len(start))
        moved = log_density(trial)
        if np.log(generator.uniform()) < moved - value:
            at, value, accepted = trial, moved, accepted + 1
        states[number] = at
    return states[steps // 2 :], accepted / steps


def _fit(residual: Callable[[Array], Array], start: Array, freedom: float) -> Fitted:
    """Gauss-Newton from `start`; the standard deviations are those of the linearised residual."""
    result = least_squares(residual, start, x_scale=np.abs(start) + 1e-3, method="lm", diff_step=1e-5)
    variance = 2 * result.cost / (freedom - len(start))
    return result.x, np.sqrt(np.diag(np.linalg.inv(result.jac.T @ result.jac)) * variance)
