"""Small problems for the tests of inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.pde.assemble import assemble
from stages.pde.equation import Equation
from stages.pde.observations import Table
from stages.pde.problem import Problem, State
from stages.pde.settings import Settings
from stages.pde.smoothed import SmoothedComponent, SmoothedFacts

HEAT = {
    "components": ["u"], "coordinates": ["t", "x"], "equations": ["u_t - D*u_xx - s*u = 0"],
    "parameters": {"D": {"positive": True}, "s": {}},
}  # fmt: skip
BURGERS = {
    "components": ["u"], "coordinates": ["t", "x"], "equations": ["u_t + a*u*u_x - b*u_xx = 0"],
    "parameters": {"a": {"prior": "uniform(0, 3)"}, "b": {"positive": True}}, "boundary": {"u": "x=0: 0"},
}  # fmt: skip


def heat_truth(points: np.ndarray, d: float = 0.1, s: float = -0.2) -> np.ndarray:
    """A solution of HEAT."""
    t, x = points.T
    found: np.ndarray = np.exp((s - d * np.pi**2) * t) * np.sin(np.pi * x) + 0.5 * np.exp(
        (s - 4 * d * np.pi**2) * t
    ) * np.sin(2 * np.pi * x)
    return found


def grid(times: int = 8, places: int = 12) -> np.ndarray:
    t, x = np.meshgrid(np.linspace(0, 1, times), np.linspace(0, 1, places), indexing="ij")
    return np.stack([t.ravel(), x.ravel()], axis=1)


def table(points: np.ndarray, values: np.ndarray, censored: np.ndarray | None = None) -> Table:
    values = values.reshape(len(points), -1)
    none = np.zeros(values.shape, bool) if censored is None else censored.reshape(values.shape)
    return Table(points, values, np.full(values.shape, np.nan), none, np.zeros(len(points), bool))


def problem(
    noise: float = 0.01, seed: int = 0, equation: dict[str, Any] = HEAT, censored: bool = False, **settings: Any
) -> tuple[Problem, State]:
    """A problem with data of `heat_truth`."""
    points = grid()
    values = heat_truth(points) + noise * np.random.default_rng(seed).standard_normal(len(points))
    limited = values < 0.05 if censored else np.zeros(len(points), bool)
    values = np.where(limited, 0.05, values)
    smoothed = SmoothedFacts(
        components={
            "u": SmoothedComponent(
                kernel="rbf", lengths=(1.0, 0.5), mean=float(values.mean()), scale=1.0, noise=noise, observed=True
            )
        },
        ranges=((0, 1), (0, 1)),
    )
    given = {"length_share": 0.7, "most_modes": 60, "most_grid_points": 400, **settings}
    return assemble(Equation.model_validate(equation), smoothed, table(points, values, limited), Settings(**given))
