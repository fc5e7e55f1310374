"""CPU seconds of the constrained process, of least squares and of MCMC through the solver as the observed grid grows.

    python benchmarks/pde_time.py                                  # every equation and size: a table, a line of JSON
    python benchmarks/pde_time.py --equations fisher_2d --sizes 1  # some of them; sizes are numbered from 0
    python benchmarks/pde_time.py --quick                          # one dimension at its smallest, under a minute

Linear and nonlinear equations in one and two dimensions of space. The methods take turns on the same data, each on one
thread. The solver (sparse, Crank-Nicolson, Newton's method) has twice as many cells as there are places, and knows the
initial and boundary values, which the constrained process does not. The time of MCMC is that of one solution, the
median of several, times the solutions of a chain; a chain is not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import pde
from stages.pde.observations import Table
from stages.pde.simulate import observed, solver_of
from stages.pde.simulation import Simulation

TIMED_SOLUTIONS = 5
STEPS = 5  # of the solver between two observed times
LIDAR = {
    "equation": {
        "components": ["u"], "coordinates": ["t", "x"], "equations": ["u_t - D*u_xx - S*u_x - A*u = 0"],
        "parameters": {"D": {"positive": True}, "S": {}, "A": {}}, "boundary": {"u": "x=0: 0; x=40: 0"},
    },
    "parameters": {"D": 1.0, "S": 0.1, "A": 0.1}, "initial": {"u": ["1/(1 + 0.1*(20 - x)**2)"]}, "noise": 0.05,
    "grid": {"t": (1, 20), "x": (0, 40)}, "sizes": [(10, 20), (20, 40), (40, 80), (80, 160)],
}  # fmt: skip
FISHER = {
    "equation": {
        "components": ["u"], "coordinates": ["t", "x"], "equations": ["u_t - D*u_xx - r*u*(1 - u) = 0"],
        "parameters": {"D": {"positive": True}, "r": {"positive": True}},
    },
    "parameters": {"D": 0.02, "r": 1.0}, "initial": {"u": ["0.1 + 0.6*exp(-(x/0.4)**2)"]}, "noise": 0.02,
    "grid": {"t": (0, 2), "x": (-1, 1)}, "sizes": [(10, 20), (20, 40), (40, 80), (80, 160)],
}  # fmt: skip
HEAT_2D = {
    "equation": {
        "components": ["u"], "coordinates": ["t", "x", "y"], "equations": ["u_t - D*(u_xx + u_yy) - A*u = 0"],
        "parameters": {"D": {"positive": True}, "A": {}},
    },
    "parameters": {"D": 0.05, "A": -0.2}, "initial": {"u": ["exp(-(x**2 + (y - 0.2)**2)/0.2)"]}, "noise": 0.02,
    "grid": {"t": (0, 2), "x": (-1, 1), "y": (-1, 1)}, "sizes": [(6, 8, 8), (10, 16, 16), (15, 24, 24), (20, 40, 40)],
}  # fmt: skip
FISHER_2D = {
    **HEAT_2D,
    "equation": {
        "components": ["u"], "coordinates": ["t", "x", "y"],
        "equations": ["u_t - D*(u_xx + u_yy) - r*u*(1 - u) = 0"],
        "parameters": {"D": {"positive": True}, "r": {"positive": True}},
    },
    "parameters": {"D": 0.05, "r": 1.0},
}  # fmt: skip
EVERY: dict[str, dict[str, Any]] = {"lidar": LIDAR, "fisher": FISHER, "heat_2d": HEAT_2D, "fisher_2d": FISHER_2D}


def simulation(given: dict[str, Any], size: Sequence[int]) -> Simulation:
    grid = {
        name: {"first": low, "last": high, "points": points, "nodes": 2 * points + 1 if place else STEPS}
        for place, ((name, (low, high)), points) in enumerate(zip(given["grid"].items(), size, strict=True))
    }
    kept = {name: given[name] for name in ("equation", "parameters", "initial", "noise")}
    return Simulation.model_validate({**kept, "grid": grid})


def measured(name: str, size: Sequence[int]) -> dict[str, Any]:
    """A row: CPU seconds, and each parameter's estimate and standard deviation, of each method."""
    given = simulation(EVERY[name], size)
    solver, times, steps = solver_of(given)
    solved = [_timed(lambda: solver.solve(given.parameters, times, steps)) for _ in range(TIMED_SOLUTIONS)]
    points, truth = observed(given, solver, times, solved[0][0])
    values = truth + given.noise * np.random.default_rng(13).standard_normal(truth.shape)
    table = Table(points, values, truth, np.zeros(values.shape, bool), np.zeros(len(points), bool))
    row: dict[str, Any] = {"equation": name, "size": "x".join(map(str, size)), "values": len(points)}
    inferred = pde.without_boundary(given.equation)
    for method, function in (
        ("constrained", lambda: pde.constrained(inferred, table)),
        ("least_squares", lambda: pde.by_solver(given, table)),
    ):
        found, seconds = _timed(function)
        row[f"{method}_s"] = round(seconds, 2)
        row[method] = {key: [round(one, 5) for one in pair] for key, pair in found.items()}
    row["mcmc_s"] = round(pde.SOLVES * float(np.median([seconds for _, seconds in solved])), 1)
    return row


QUICK = ("lidar", "fisher")  # one dimension of space


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return function(), time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--equations", nargs="+", choices=list(EVERY), default=list(EVERY))
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| equation | grid | constrained | least squares | MCMC | MCMC / constrained |\n|---|---|---|---|---|---|")
    with threadpool_limits(1):
        for place in [0] if options.quick else options.sizes:
            for name in QUICK if options.quick else options.equations:
                if place < len(EVERY[name]["sizes"]):
                    row = measured(name, EVERY[name]["sizes"][place])
                    rows.append(row)
                    ratio = row["mcmc_s"] / row["constrained_s"]
                    print(f"| {name} | {row['size']} | {row['constrained_s']} | {row['least_squares_s']} | "
                          f"{row['mcmc_s']} | {ratio:.0f} |", flush=True)  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
