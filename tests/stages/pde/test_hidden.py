"""A component that is not observed: its field and its mean follow from the equation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from stages.pde import basis, choice, search
from stages.pde.assemble import assemble
from stages.pde.equation import Equation
from stages.pde.inference import Mode
from stages.pde.observations import Table
from stages.pde.settings import Settings
from stages.pde.smoothed import SmoothedComponent, SmoothedFacts
from tests.stages.pde.examples import table

TIMES = np.linspace(0, 6, 41)
CHAINED = {  # v drives u around a mean that no value of u has
    "components": ["u", "v"], "coordinates": ["t"], "equations": ["u_t - v + 2*u = 0", "v_t + k*(v - c) = 0"],
    "parameters": {"k": {"positive": True}, "c": {}},
}  # fmt: skip
TRUTH = {"k": 0.7, "c": 6.0}


def chained(mean_sd: float = 6.0, noise: float = 0.01) -> tuple[Equation, SmoothedFacts, Table, np.ndarray]:
    """Data of u alone, and the true v."""
    solved = solve_ivp(
        lambda _, at: [at[1] - 2 * at[0], -TRUTH["k"] * (at[1] - TRUTH["c"])], (0, 6), [0.5, 3.0],
        t_eval=TIMES, rtol=1e-9,
    )  # fmt: skip
    u, v = solved.y
    values = np.stack([u + noise * np.random.default_rng(0).standard_normal(len(u)), np.full(len(u), np.nan)], axis=1)
    facts: dict[str, Any] = {
        "kernel": "matern_11_2", "lengths": (3.0,), "mean": float(u.mean()), "scale": 0.8, "noise": noise,
    }  # fmt: skip
    components = {
        "u": SmoothedComponent(**facts, observed=True),
        "v": SmoothedComponent(**facts, observed=False, mean_sd=mean_sd),
    }
    smoothed = SmoothedFacts(components=components, ranges=((0, 6),))
    return Equation.model_validate(CHAINED), smoothed, table(TIMES[:, None], values), v


def field(mode: Mode) -> np.ndarray:
    """v at the times of the data."""
    problem, own = mode.problem, mode.problem.bases[1]
    found: np.ndarray = (
        own.at(torch.from_numpy(TIMES[:, None]), (0,)) @ mode.state.z[problem.offsets[1] :] + own.mean
    ).numpy()
    return found


def test_a_hidden_component_with_another_mean_is_recovered() -> None:
    equation, smoothed, data, truth = chained()
    mode, _ = choice.mode(equation, smoothed, data, Settings(length_share=1, early_share=1))
    assert abs(truth.mean() - smoothed.components["v"].mean) > 2 * smoothed.components["v"].scale
    assert float(np.abs(field(mode) - truth).max()) < 0.2 * truth.std()
    found = mode.problem.parameters.constrained(mode.state.eta)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(TRUTH, rel=0.1)


def test_the_unknown_mean_of_a_component_is_one_of_its_functions() -> None:
    axis = basis.coordinate("rbf", 0.5, torch.linspace(0, 1, 20, dtype=torch.float64))
    points = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    known, unknown = (basis.basis([axis], 1.0, 0.5, [(1,)], 0.9999, 50, sd) for sd in (0.0, 3.0))
    assert unknown.size == known.size + 1
    torch.testing.assert_close(unknown.at(points, (0,))[:, 1:], known.at(points, (0,)))
    assert unknown.at(points, (0,))[:, 0].tolist() == [3.0] * 5
    assert unknown.at(points, (1,))[:, 0].tolist() == [0.0] * 5
    assert bool((unknown.variance(points, (0,)) == known.variance(points, (0,)) + 9).all())
    torch.testing.assert_close(unknown.variance(points, (1,)), known.variance(points, (1,)))


def test_matching_solves_for_the_hidden_component() -> None:
    equation, smoothed, data, truth = chained()
    problem, start = assemble(equation, smoothed, data, Settings(length_share=1))
    own = problem.bases[1]
    functions = own.at(torch.from_numpy(TIMES[:, None]), (0,))
    errors = [
        float(np.abs((functions @ one.z[problem.offsets[1] :] + own.mean).numpy() - truth).mean())
        for one in search.hidden_matching(problem, start)
    ]
    assert min(errors) < 0.3
    assert abs(own.mean - truth.mean()) > 2
    assert problem.hidden
    assert problem.observed == [0]
