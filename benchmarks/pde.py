"""Parameters of differential equations: bias, error, coverage and time of constrained Gaussian processes and its peers.

    python benchmarks/pde.py recovery --replicates 20 --noise 0.02 0.05   # LIDAR: a table, and one JSON line a fit
    python benchmarks/pde.py ordinary --replicates 3                      # FitzHugh-Nagumo, next to a MAGI package
    python benchmarks/pde.py --quick                                      # one replicate of each noise, without mcmc

The methods take turns on the same data of each replicate. Times are CPU seconds of one thread. The peers:

- two-stage: a Gaussian process smooths the data, then least squares fit its derivatives to the equation;
- least squares: Crank-Nicolson solves the equation for each trial; the true initial and boundary values are known;
- least squares, edges estimated; cascading: see `benchmarks/pde_rivals.py` (LIDAR only);
- mcmc: adaptive Metropolis over the solver's likelihood from the result of least squares, with the same knowledge;
- magi: py-magpi, if it is installed (`pip install py-magpi`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import pde_rivals
from pipelines import config
from stages.pde import choice, marginal, search
from stages.pde.assemble import assemble
from stages.pde.equation import Equation
from stages.pde.kernel_names import KernelName
from stages.pde.make_observations import MakeObservations
from stages.pde.observations import Table
from stages.pde.settings import Settings
from stages.pde.simulate import observed, solver_of
from stages.pde.simulation import Simulation
from stages.pde.smoothed import SmoothedComponent, SmoothedFacts

KERNEL: KernelName = "matern_11_2"
KNOWING = ("least squares", "magi", "constrained, edges known", "mcmc")  # methods that get the simulation
SOLVES = 2000  # of mcmc
MAGI_TIMES = 4
Found = dict[str, tuple[float, float]]  # by parameter: estimate and standard deviation (NaN: it gives none)


def simulation(name: str) -> Simulation:
    stage = config.compose(["pipeline=pde", f"simulation@steps.observations.simulation={name}"]).graph.steps[
        "observations"
    ].stage  # fmt: skip
    assert isinstance(stage, MakeObservations)
    assert stage.simulation is not None
    return stage.simulation


def without_boundary(equation: Equation) -> Equation:
    """The equation as the inference gets it: the boundary values are not known to it."""
    return equation.model_copy(update={"boundary": {}})


def smoothed(equation: Equation, table: Table) -> SmoothedFacts:
    low, high = table.points.min(axis=0), table.points.max(axis=0)
    components = {}
    for place, name in enumerate(equation.components):
        mean = float(table.values[:, place].mean())
        best, _ = marginal.fit(KERNEL, table.points, table.values[:, place] - mean, list(high - low), 1, 0)
        components[name] = SmoothedComponent(
            kernel=KERNEL, lengths=best.lengths, mean=mean, scale=best.scale, noise=best.noise, observed=True
        )
    return SmoothedFacts(components=components, ranges=tuple(zip(low.tolist(), high.tolist(), strict=True)))


def two_stage(equation: Equation, table: Table) -> Found:
    given, start = assemble(equation, smoothed(equation, table), table, Settings(length_share=1.0))
    given.refresh(start.z, start.eta)
    found = search.gradient_matching(given, start)
    return {name: (float(value), float("nan")) for name, value in given.parameters.constrained(found.eta).items()}


def constrained(equation: Equation, table: Table) -> Found:
    """The normal approximation at the mode, with the length-scales that have the highest evidence."""
    mode, _ = choice.mode(equation, smoothed(equation, table), table, Settings())
    given = mode.problem
    deviations = torch.linalg.inv(mode.precision).diagonal().sqrt()[mode.eta_place]
    slopes = given.parameters.slopes(mode.state.eta)
    theta = given.parameters.constrained(mode.state.eta)
    return {
        name: (float(value), float(sd * abs(slope)))
        for (name, value), sd, slope in zip(theta.items(), deviations, slopes, strict=True)
    }


def with_edges(given: Simulation, table: Table) -> Found:
    """The same with the initial and boundary values known, as by least squares."""
    time_name, axis = given.equation.coordinates[0], given.grid[given.equation.coordinates[0]]
    edges = dict(given.equation.boundary)
    for name, (value, *_) in given.initial.items():
        initial = f"{time_name}={axis.low}: {value}"
        edges[name] = f"{edges[name]}; {initial}" if name in edges else initial
    raw = {**given.equation.model_dump(), "boundary": edges}
    return constrained(Equation.model_validate(raw), table)


def by_solver(given: Simulation, table: Table) -> Found:
    """Least squares through the solver, with its initial and boundary values."""
    solver, times, steps = solver_of(given)
    names = list(given.equation.parameters)

    def residual(theta: np.ndarray) -> np.ndarray:
        fields = solver.solve(dict(zip(names, theta.tolist(), strict=True)), times, steps)
        values: np.ndarray = (observed(given, solver, times, fields)[1] - table.values).ravel()
        return values

    start = np.array([given.parameters[name] for name in names]) * 1.3
    result = least_squares(residual, start, x_scale=np.abs(start), method="lm", diff_step=1e-4)
    variance = 2 * result.cost / (table.values.size - len(names))
    deviations = np.sqrt(np.diag(np.linalg.inv(result.jac.T @ result.jac)) * variance)
    return {name: (float(v), float(s)) for name, v, s in zip(names, result.x, deviations, strict=True)}


def edges_estimated(equation: Equation, table: Table) -> Found:
    return _by_name(equation, pde_rivals.edges_estimated(table.points, table.values[:, 0], _matched(equation, table)))


def cascading(equation: Equation, table: Table) -> Found:
    return _by_name(equation, pde_rivals.cascading(table.points, table.values[:, 0], _matched(equation, table)))


def _matched(equation: Equation, table: Table) -> np.ndarray:
    """The result of two-stage matching, from which the others start."""
    return np.array([value for value, _ in two_stage(equation, table).values()])


def _by_name(equation: Equation, fitted: pde_rivals.Fitted) -> Found:
    return {name: (float(v), float(s)) for name, v, s in zip(equation.parameters, *fitted, strict=True)}


def mcmc(given: Simulation, table: Table) -> Found:
    """Adaptive Metropolis on (theta, log sigma); flat priors. The start and the first proposals are those of least
    squares."""
    solver, times, steps = solver_of(given)
    names = list(given.equation.parameters)

    def log_density(x: np.ndarray) -> float:
        if any(value <= 0 for value in x[:-1]):
            return -np.inf
        fields = solver.solve(dict(zip(names, x[:-1].tolist(), strict=True)), times, steps)
        squares = ((observed(given, solver, times, fields)[1] - table.values) ** 2).sum()
        return float(-0.5 * squares * np.exp(-2 * x[-1]) - table.values.size * x[-1])

    found = by_solver(given, table)
    theta, deviations = (np.array(one) for one in zip(*found.values(), strict=True))
    start = np.append(theta, np.log(given.noise))
    proposal = np.diag(np.append(deviations, 1 / np.sqrt(2 * table.values.size)) ** 2)
    states, _ = pde_rivals.metropolis(log_density, start, proposal, SOLVES, 0)
    return {name: (float(one.mean()), float(one.std())) for name, one in zip(names, states.T[:-1], strict=True)}


def magi(given: Simulation, table: Table) -> Found:
    """py-magpi on FitzHugh-Nagumo, with its recommended fit, the noise unknown to it, and its constraint at four times
    as many times as the data have."""
    import jax.numpy as jnp
    from magpi import MAGI

    def equations(x: Any, theta: Any, t: Any) -> Any:
        a, b, c = theta
        return jnp.array([c * (x[0] - x[0] ** 3 / 3 + x[1]), -(x[0] - a + b * x[1]) / c])

    times = table.points[:, 0]
    data = np.full((MAGI_TIMES * (len(times) - 1) + 1, 1 + table.values.shape[1]), np.nan)
    data[:, 0] = np.interp(np.arange(len(data)), MAGI_TIMES * np.arange(len(times)), times)
    data[::MAGI_TIMES, 1:] = table.values
    model = MAGI(equations, data, theta_mean=[1, 1, 1], theta_prec=1e-3, theta_pos=True)
    found = model.fit()
    deviations = np.sqrt(np.diag(np.asarray(found.theta_cov)))  # of theta, then of the logarithms of the noise
    return {
        name: (float(found.mean[place]), float(deviations[place]))
        for place, name in enumerate(given.equation.parameters)
    }


def replicates(
    name: str, noise: float, numbers: Iterable[int], methods: Mapping[str, Callable[..., Found]]
) -> Iterator[dict[str, Any]]:
    """A row for every replicate and method, which take turns."""
    given = simulation(name)
    solver, times, steps = solver_of(given)
    points, truth = observed(given, solver, times, solver.solve(given.parameters, times, steps))
    inferred = without_boundary(given.equation)
    for replicate in numbers:
        values = truth + noise * np.random.default_rng([replicate, 13]).standard_normal(truth.shape)
        table = Table(points, values, truth, np.zeros(values.shape, bool), np.zeros(len(points), bool))
        for method, function in methods.items():
            started = time.process_time()
            found = function(given if method in KNOWING else inferred, table)
            seconds = time.process_time() - started
            for parameter, (estimate, sd) in found.items():
                yield {
                    "equation": name, "noise": noise, "replicate": replicate, "method": method,
                    "parameter": parameter, "truth": given.parameters[parameter], "estimate": estimate, "sd": sd,
                    "seconds": seconds,
                }  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bias, root mean square error, and the share of 95 % intervals that hold the truth."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["equation"], row["noise"], row["parameter"], row["method"]].append(row)
    lines = [
        "| equation | noise | parameter | method | fits | bias | RMSE | 95 % coverage | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in sorted(groups.items()):
        errors = np.array([row["estimate"] - row["truth"] for row in group])
        deviations = np.array([row["sd"] for row in group])
        known = np.isfinite(deviations).all()
        covered = f"{np.mean(np.abs(errors) <= 1.96 * deviations):.0%}" if known else ""
        seconds = np.median([row["seconds"] for row in group])
        cells = [*map(str, key), str(len(group)), f"{errors.mean():+.5f}", f"{np.sqrt(np.mean(errors**2)):.5f}",
                 covered, f"{seconds:.1f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", nargs="?", choices=["recovery", "ordinary"], default="recovery")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first replicate, to share them out over processes")
    parser.add_argument("--noise", type=float, nargs="+", default=[])
    parser.add_argument("--methods", nargs="+", default=[], help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every: dict[str, Callable[..., Found]] = {
        "constrained": constrained, "constrained, edges known": with_edges, "two-stage": two_stage,
        "least squares": by_solver, "mcmc": mcmc,
    }  # fmt: skip
    every |= (
        {"magi": magi}
        if options.verb == "ordinary"
        else {"least squares, edges estimated": edges_estimated, "cascading": cascading}
    )
    if options.quick:
        del every["mcmc"]  # minutes
    methods = {name: function for name, function in every.items() if not options.methods or name in options.methods}
    numbers = range(options.first, options.first + (1 if options.quick else options.replicates))
    rows = []
    with threadpool_limits(1):
        names = ["lidar"] if options.verb == "recovery" else ["fitzhugh_nagumo"]
        for name in names:
            for noise in options.noise or ([0.02, 0.05] if name == "lidar" else [0.2]):
                for row in replicates(name, noise, numbers, methods):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    print(summary(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
