"""Small problems for the tests of inference."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

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


def fitzhugh_nagumo(noise: float = 0.2, seed: int = 2) -> tuple[Problem, State, dict[str, float]]:
    """A problem with 41 noisy points of the FitzHugh-Nagumo equations, and their true parameters."""
    truth = {"a": 0.2, "b": 0.2, "c": 3.0}

    def change(_: float, at: np.ndarray) -> list[float]:
        v, r = at
        return [truth["c"] * (v - v**3 / 3 + r), -(v - truth["a"] + truth["b"] * r) / truth["c"]]

    times = np.linspace(0, 20, 41)
    solved = solve_ivp(change, (0, 20), [-1.0, 1.0], t_eval=times, rtol=1e-8)
    values = solved.y.T + noise * np.random.default_rng(seed).standard_normal((len(times), 2))
    components = {
        name: SmoothedComponent(
            kernel="matern_11_2", lengths=(length,), mean=float(values[:, place].mean()), scale=scale, noise=noise,
            observed=True,
        )
        for place, (name, length, scale) in enumerate([("V", 1.1, 1.4), ("R", 2.0, 0.8)])
    }  # fmt: skip
    equation = Equation.model_validate({
        "components": ["V", "R"], "coordinates": ["t"],
        "equations": ["V_t - c*(V - V**3/3 + R) = 0", "R_t + (V - a + b*R)/c = 0"],
        "parameters": {name: {"positive": True} for name in truth},
    })  # fmt: skip
    smoothed = SmoothedFacts(components=components, ranges=((0, 20),))
    given, start = assemble(equation, smoothed, table(times[:, None], values), Settings(length_share=0.4))
    return given, start, truth
