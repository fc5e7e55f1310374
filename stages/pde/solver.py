"""A solver for simulated data and for comparison: finite differences in space, Crank-Nicolson in time.

The inference never calls it. It solves the equations as they are written, F = 0, with Newton's method: the time
derivative is a difference between two times, everything else is their mean. The first steps are implicit Euler, which
damps what an initial value that does not fit the boundary excites (Rannacher).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from stages.base import StageError
from stages.pde.equation import Condition, Equation
from stages.pde.language import Vocabulary, parse_expression
from stages.pde.symbols import Symbols, evaluate
from stages.pde.system import System

Array = NDArray[np.float64]
Edge = tuple[int, NDArray[np.intp], Any, Callable[[Array], Array]]  # state, nodes, matrix of the rows, their values
EULER_STEPS = 4
NEWTON_STEPS = 30
TOLERANCE = 1e-10


def function_of(text: str, names: Sequence[str]) -> Callable[[Array], Array]:
    """An expression of coordinates as a function of points [n, coordinates]."""
    vocabulary = Vocabulary((), tuple(names))
    symbols = Symbols(vocabulary)
    expression = symbols.expression(parse_expression(text, vocabulary))

    def values(points: Array) -> Array:
        given = {symbol: points[:, axis] for axis, symbol in enumerate(symbols.coordinates.values())}
        return np.broadcast_to(np.asarray(evaluate(expression, given, np), np.float64), (len(points),)).copy()

    return values


def differences(nodes: Array, order: int) -> Any:
    """The matrix of a derivative on equidistant nodes, of second order of accuracy inside."""
    n, h = len(nodes), nodes[1] - nodes[0]
    if order == 0:
        return sparse.identity(n, format="csr")
    if order == 1:
        matrix = sparse.diags([-0.5, 0.5], [-1, 1], shape=(n, n), format="lil")
        matrix[0, :3], matrix[-1, -3:] = [-1.5, 2, -0.5], [0.5, -2, 1.5]
        return sparse.csr_matrix(matrix) / h
    if order == 2:
        matrix = sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n, n), format="lil")
        matrix[0, :4], matrix[-1, -4:] = [2, -5, 4, -1], [-1, 4, -5, 2]
        return sparse.csr_matrix(matrix) / h**2
    return differences(nodes, 2) @ differences(nodes, order - 2)


class Solver:
    """Solves an equation on fixed nodes of space, for any parameters."""

    def __init__(self, equation: Equation, space: Sequence[Array], initial: Mapping[str, Sequence[str]]) -> None:
        """`space`: equidistant nodes of each coordinate but the first, which is time. `initial`: for each component its
        value at the first time, and those of its time derivatives below the highest, as expressions of space."""
        self.equation = equation
        self.system: System = equation.system()
        self.space = [np.asarray(one, np.float64) for one in space]
        names = equation.coordinates[1:]
        mesh = np.meshgrid(*self.space, indexing="ij") if names else []
        self.points = np.stack([one.ravel() for one in mesh], 1) if names else np.zeros((1, 0))
        self.n = len(self.points)
        self.states: list[tuple[str, int]] = []  # (component, how often differentiated in time)
        for component in equation.components:
            times = max((orders[0] for orders in self.system.orders(component)), default=0)
            if times == 0:
                raise StageError(f"no equation has a time derivative of {component}: its simulation is not supported")
            self.states += [(component, level) for level in range(times)]
        if len(self.system.residuals) != len(equation.components):
            raise StageError("a simulation needs as many equations as components")
        self.start = np.zeros(len(self.states) * self.n)
        for index, (component, level) in enumerate(self.states):
            texts = list(initial.get(component, ()))
            if level >= len(texts):
                raise StageError(f"initial.{component}: expected {level + 1} initial values, got {len(texts)}")
            self.start[index * self.n : (index + 1) * self.n] = function_of(texts[level], names)(self.points)
        self.matrices = {symbol: self._matrix(one.orders[1:]) for symbol, one in self.system.derivatives.items()}
        self.edges = [self._edge(one) for one in equation.conditions if one.coordinate != equation.coordinates[0]]
        self.edges = _distinct([*self.edges, *self._closed_edges()])
        time = self.system.symbols.coordinates[equation.coordinates[0]]
        slopes = [slope for slopes in self.system.by_derivative for slope in slopes.values()]
        self.steady = self.system.linear and not any(time in slope.free_symbols for slope in slopes)

    def solve(self, parameters: Mapping[str, float], times: Sequence[float] | Array, steps: int) -> dict[str, Array]:
        """The components at `times` [times, *space], with `steps` time steps between two of them.

        Raises StageError if Newton's method does not converge.
        """
        state, found = self.start.copy(), [self.start.copy()]
        factors: dict[tuple[float, bool], Any] = {}
        done = 0
        for before, after in pairwise(times):
            step = (after - before) / steps
            for number in range(steps):
                halves = 2 if done < EULER_STEPS // 2 else 1
                for half in range(halves):
                    at = before + (number + (half + 1) / halves) * step
                    state = self._step(state, at, step / halves, halves == 2, parameters, factors)
                done += 1
            found.append(state.copy())
        shape = (len(times), *(len(one) for one in self.space))
        stacked = np.stack(found)
        return {
            component: stacked[:, index * self.n : (index + 1) * self.n].reshape(shape)
            for index, (component, level) in enumerate(self.states)
            if level == 0
        }

    def _step(
        self,
        before: Array,
        time: float,
        step: float,
        euler: bool,
        parameters: Mapping[str, float],
        factors: dict[tuple[float, bool], Any],
    ) -> Array:
        after, weight = before.copy(), 1.0 if euler else 0.5
        scale = 1.0
        for _ in range(NEWTON_STEPS):
            residual, jacobian = self._linearised(
                before, after, time, step, weight, parameters, (step, euler) in factors
            )
            if (step, euler) in factors:
                factor = factors[step, euler]
            else:
                factor = splu(sparse.csc_matrix(jacobian))
                if self.steady:
                    factors[step, euler] = factor
            change: Array = factor.solve(residual)
            after = after - change
            scale = max(1.0, float(np.abs(after).max()))
            if not np.isfinite(after).all():
                break
            if self.system.linear or np.abs(change).max() < TOLERANCE * scale:
                return after
        raise StageError(f"the simulation does not converge at time {time:.6g}: use more steps, or other parameters")

    def _linearised(
        self, before: Array, after: Array, time: float, step: float, weight: float, parameters: Mapping[str, float],
        residual_only: bool,
    ) -> tuple[Array, Any]:  # fmt: skip
        n, index = self.n, {state: number for number, state in enumerate(self.states)}
        mean, slope = weight * after + (1 - weight) * before, (after - before) / step
        fields: dict[Any, Array] = {}
        places: dict[Any, tuple[int, float]] = {}  # of each derivative: the state that it is of, and d value / d state
        for symbol, one in self.system.derivatives.items():
            level = one.orders[0]
            highest = (one.component, level) not in index
            state = index[one.component, level - highest]
            source = slope if highest else mean
            fields[symbol] = self.matrices[symbol] @ source[state * n : (state + 1) * n]
            places[symbol] = state, 1 / step if highest else weight
        at = time - (1 - weight) * step
        points = np.column_stack([np.full(n, at), self.points])
        values = self.system.values(fields, points, parameters)
        rows: list[Array] = []
        blocks: list[list[Any]] = []
        for number in range(len(self.system.residuals)):
            rows.append(np.broadcast_to(self.system.residual(number, values, np), (n,)).astype(float))
            row: list[Any] = [None] * len(self.states)
            if not residual_only:
                for symbol, derivative in self.system.by_derivative[number].items():
                    state, factor = places[symbol]
                    block = _scaled(
                        self.matrices[symbol], factor * np.broadcast_to(evaluate(derivative, values, np), n)
                    )
                    row[state] = block if row[state] is None else row[state] + block
            blocks.append(row)
        for (component, level), state in index.items():
            if level > 0:  # d/dt of the state below is this one
                below = index[component, level - 1]
                rows.append(slope[below * n : (below + 1) * n] - mean[state * n : (state + 1) * n])
                row = [None] * len(self.states)
                row[below], row[state] = (
                    sparse.identity(n, format="csr") / step,
                    sparse.identity(n, format="csr") * -weight,
                )
                blocks.append(row)
        residual = np.concatenate(rows)
        jacobian = None if residual_only else sparse.bmat(self._square(blocks), format="csr")
        return self._with_edges(residual, jacobian, after, time)

    def _square(self, blocks: list[list[Any]]) -> list[list[Any]]:
        empty = sparse.csr_matrix((self.n, self.n))
        return [[empty if one is None else one for one in row] for row in blocks]

    def _with_edges(self, residual: Array, jacobian: Any, after: Array, time: float) -> tuple[Array, Any]:
        """Replaces the equations of edge nodes by their boundary values."""
        keep = np.ones(len(residual))
        extra = []
        for state, nodes, matrix, value in self.edges:
            rows = state * self.n + nodes
            points = np.column_stack([np.full(len(nodes), time), self.points[nodes]])
            residual[rows] = matrix @ after - value(points)
            keep[rows] = 0
            extra.append((rows, matrix))
        if jacobian is None:
            return residual, None
        jacobian = _scaled(jacobian, keep)
        for rows, matrix in extra:
            chosen = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), (len(residual), len(rows)))
            jacobian = jacobian + chosen @ matrix
        return residual, jacobian

    def _matrix(self, orders: Sequence[int]) -> Any:
        matrix = sparse.identity(1, format="csr")
        for nodes, order in zip(self.space, orders, strict=True):
            matrix = sparse.kron(matrix, differences(nodes, order), format="csr")
        return matrix

    def _edge(self, condition: Condition) -> Edge:
        """The nodes of a boundary value, the rows that it has there, and its values. Raises StageError."""
        axis = self.equation.coordinates.index(condition.coordinate) - 1
        nodes = self.space[axis]
        if not any(np.isclose(condition.place, end) for end in (nodes[0], nodes[-1])):
            raise StageError(
                f"boundary: {condition.coordinate}={condition.place} is inside the simulated range "
                f"{nodes[0]:g} to {nodes[-1]:g}"
            )
        value = function_of(condition.value, self.equation.coordinates)
        return self._rows(
            condition.component, axis, np.isclose(condition.place, nodes[-1]), condition.orders[1:], value
        )

    def _rows(self, component: str, axis: int, last: bool, orders: Sequence[int], value: Any) -> Edge:
        state = self.states.index((component, 0))
        nodes = self.space[axis]
        chosen = np.flatnonzero(self.points[:, axis] == (nodes[-1] if last else nodes[0]))
        matrix = self._matrix(orders)[chosen]
        left = sparse.csr_matrix((len(chosen), state * self.n))
        right = sparse.csr_matrix((len(chosen), (len(self.states) - state - 1) * self.n))
        return state, chosen, sparse.hstack([left, matrix, right], format="csr"), value

    def _closed_edges(self) -> list[Edge]:
        """Edges without a boundary value have no flux: the first derivative across them is 0."""
        given = {
            (one.component, one.coordinate, bool(np.isclose(one.place, self.space[axis][-1])))
            for one in self.equation.conditions
            for axis, name in enumerate(self.equation.coordinates[1:])
            if name == one.coordinate
        }
        return [
            self._rows(component, axis, last, [int(axis == other) for other in range(len(self.space))], _nothing)
            for component in self.equation.components
            for axis, name in enumerate(self.equation.coordinates[1:])
            for last in (False, True)
            if (component, name, last) not in given
        ]


def _distinct(edges: Sequence[Edge]) -> list[Edge]:
    """A corner is on several edges, and has the boundary value of the first of them."""
    found: list[Edge] = []
    for state, nodes, matrix, value in edges:
        taken = [one[1] for one in found if one[0] == state]
        free = ~np.isin(nodes, np.concatenate(taken)) if taken else np.ones(len(nodes), bool)
        found.append((state, nodes[free], matrix[free], value))
    return found


def _nothing(points: Array) -> Array:
    return np.zeros(len(points))


def _scaled(matrix: Any, rows: Array) -> Any:
    """A CSR matrix with each row multiplied by a number."""
    counts = np.diff(matrix.indptr)
    return sparse.csr_matrix((matrix.data * np.repeat(rows, counts), matrix.indices, matrix.indptr), matrix.shape)
