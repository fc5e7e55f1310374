"""Observations: the solver against exact solutions, and tables in every format with what is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stages.base import StageError
from stages.pde.equation import Equation
from stages.pde.make_observations import MakeObservations
from stages.pde.solver import Solver
from tests.support import run_stage

ROWS = 12


def made(tmp_path: Path, **fields: Any) -> Any:
    return run_stage(MakeObservations.model_validate(fields), {}, tmp_path / "step", draw=False)


def columns() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "t": np.repeat([0.0, 1.0, 2.0], 4), "x": np.tile([0.0, 10.0, 20.0, 30.0], 3),
        "u": generator.standard_normal(ROWS), "plate": np.tile([1.0, 2.0], 6),
    }  # fmt: skip


def csv(path: Path, **changed: Any) -> Path:
    given: dict[str, Any] = {**columns(), **changed}
    lines = [",".join(given), *(",".join(str(given[name][row]) for name in given) for row in range(ROWS))]
    path.write_text("\n".join(lines) + "\n")
    return path


def written(path: Path) -> Path:
    if path.suffix == ".csv":
        csv(path)
    elif path.suffix == ".npz":
        np.savez(path, **columns())  # type: ignore[arg-type]
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns()), path)
    else:
        import h5netcdf

        with h5netcdf.File(path, "w") as file:
            file.dimensions = {"t": 3, "x": 4}
            file.create_variable("t", ("t",), float)[:] = [0.0, 1.0, 2.0]
            file.create_variable("x", ("x",), float)[:] = [0.0, 10.0, 20.0, 30.0]
            file.create_variable("u", ("t", "x"), float)[:] = columns()["u"].reshape(3, 4)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz", ".nc"])
def test_every_format_gives_the_same_table(ending: str, tmp_path: Path) -> None:
    observations, _ = made(tmp_path, path=str(written(tmp_path / f"data{ending}")), columns={"x": {"scale": 0.1}})
    table = observations.table()
    np.testing.assert_allclose(table.points[:, 1], columns()["x"] / 10)
    np.testing.assert_allclose(table.values[:, 0], columns()["u"])


def test_replicates_missing_and_censored_values_are_kept_apart(tmp_path: Path) -> None:
    u = [*map(str, np.linspace(0, 1, ROWS - 1)), ""]
    path = csv(tmp_path / "data.csv", u=u)
    observations, context = made(
        tmp_path, path=str(path), replicate="plate", held_out=[2], columns={"u": {"censored_below": 0.15}}
    )
    table = observations.table()
    assert table.held_out.sum() == ROWS / 2
    assert np.isnan(table.values[-1, 0])
    assert table.censored.sum() == 2
    assert set(table.values[table.censored]) == {0.15}
    assert observations.facts.replicates == 2
    assert context.last["missing"] == 1


def test_rows_can_be_chosen_and_a_component_can_be_hidden(tmp_path: Path) -> None:
    path = csv(tmp_path / "data.csv")
    observations, context = made(tmp_path, path=str(path), where={"plate": 1}, components=["u", "v"])
    table = observations.table()
    assert len(table.points) == ROWS / 2
    assert np.isnan(table.values[:, 1]).all()
    assert "hidden" in context.notes[0]


@pytest.mark.parametrize(
    ("changed", "fields", "message"),
    [
        ({"u": ["inf"] * ROWS}, {}, "row 1, column 'u': u is inf; expected finite"),
        ({"t": ["nan"] * ROWS}, {}, "row 1, column 't': t is nan; expected finite"),
        ({"u": ["many"] * ROWS}, {}, "not numeric"),
        ({}, {"columns": {"x": {"maximum": 25}}}, "row 4, column 'x': x is 30; expected -inf to 25. 3 rows"),
        ({}, {"columns": {"u": "density"}}, "no column 'density' for u; it has t, x, u, plate"),
        ({}, {"where": {"plate": 9}}, "no row has plate = 9"),
        ({}, {"replicate": "plate", "held_out": [7]}, "no replicate '7'; it has 1, 2"),
    ],
)
def test_a_wrong_table_is_refused(
    changed: dict[str, Any], fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r".*") as caught:
        made(tmp_path, path=str(csv(tmp_path / "data.csv", **changed)), **fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("fields", [{}, {"path": "data.xlsx"}, {"path": "a.csv", "columns": {"w": "u"}}])
def test_a_wrong_configuration_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MakeObservations.model_validate(fields)


def solved(equations: list[str], initial: dict[str, list[str]], edges: str, **given: float) -> np.ndarray:
    equation = Equation.model_validate({
        "components": list(initial), "coordinates": ["t", "x"], "equations": equations,
        "parameters": {name: {} for name in given}, "boundary": {"u": edges},
    })  # fmt: skip
    solver = Solver(equation, [np.linspace(0, 1, 61)], initial)
    found: np.ndarray = solver.solve(given, [0.0, 0.25, 0.5], 40)["u"][-1]
    return found


def test_the_solver_agrees_with_exact_solutions() -> None:
    x = np.linspace(0, 1, 61)
    heat = solved(["u_t = D*u_xx"], {"u": ["sin(3.141592653589793*x)"]}, "x=0: 0; x=1: 0", D=0.1)
    np.testing.assert_allclose(heat, np.exp(-0.05 * np.pi**2) * np.sin(np.pi * x), atol=5e-4)
    wave = solved(["u_tt = c*u_xx"], {"u": ["sin(3.141592653589793*x)", "0"]}, "x=0: 0; x=1: 0", c=1.0)
    np.testing.assert_allclose(wave, 0, atol=3e-3)
    closed = solved(["u_t = D*u_xx"], {"u": ["1 + cos(3.141592653589793*x)"]}, "", D=0.1)
    np.testing.assert_allclose(closed, 1 + np.exp(-0.05 * np.pi**2) * np.cos(np.pi * x), atol=2e-3)
    logistic = solved(["u_t = r*u*(1 - u) + 0*u_xx"], {"u": ["0.1"]}, "", r=2.0)
    np.testing.assert_allclose(logistic, 1 / (1 + 9 * np.exp(-1.0)), atol=1e-4)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("reaction", ["", " - u*(1 - u) + exp(-0.4*pi2*t)*f*(1 - exp(-0.4*pi2*t)*f)"])
def test_the_solver_solves_in_two_dimensions_of_space(closed: bool, reaction: str) -> None:
    """Without flux and with the value 0 at the edges, corners included, linear and not."""
    shape = "cos" if closed else "sin"
    field = f"{shape}(3.141592653589793*x)*{shape}(3.141592653589793*y)"
    reaction = reaction.replace("pi2", "9.869604401089358").replace("f", field)
    edges = "; ".join(f"{axis}={end}: 0" for axis in "xy" for end in (0, 1))
    equation = Equation.model_validate({
        "components": ["u"], "coordinates": ["t", "x", "y"], "equations": [f"u_t - D*(u_xx + u_yy){reaction} = 0"],
        "parameters": {"D": {"positive": True}}, "boundary": {} if closed else {"u": edges},
    })  # fmt: skip
    places = np.linspace(0, 1, 21)
    solver = Solver(equation, [places, places], {"u": [field]})
    found = solver.solve({"D": 0.2}, [0.0, 0.2], 20)["u"][-1]
    along = np.cos(np.pi * places) if closed else np.sin(np.pi * places)
    np.testing.assert_allclose(found, np.exp(-0.4 * np.pi**2 * 0.2) * np.outer(along, along), atol=0.01)
