"""The shipped pipeline and equations: they compose, and the debug size runs from data to served predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pipelines import config
from pipelines import fingerprint as fingerprints
from stages.base import StageError
from stages.pde.http import create
from stages.pde.infer import Infer
from stages.pde.make_observations import MakeObservations
from tests.support import run_stage

ROOT = Path(__file__).parents[3]
EQUATIONS = sorted(path.stem for path in (ROOT / "conf" / "equation").glob("*.yaml"))
SIMULATIONS = sorted(path.stem for path in (ROOT / "conf" / "simulation").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", EQUATIONS)
def test_every_equation_is_linear_in_its_derivatives(name: str) -> None:
    graph = config.compose([
        "pipeline=pde", f"equation@steps.infer.equation={name}", "steps.observations.path=data.csv",
    ]).graph  # fmt: skip
    stage = graph.steps["infer"].stage
    assert isinstance(stage, Infer)
    system = stage.equation.system()
    assert len(system.augmentation) >= len(stage.equation.equations)
    observations = graph.steps["observations"].stage
    assert isinstance(observations, MakeObservations)
    assert observations.components == stage.equation.components


@pytest.mark.parametrize("name", SIMULATIONS)
def test_every_simulation_composes(name: str) -> None:
    graph = config.compose(["pipeline=pde", f"simulation@steps.observations.simulation={name}"]).graph
    assert isinstance(graph.steps["observations"].stage, MakeObservations)


def test_columns_of_a_file_are_part_of_a_fingerprint(tmp_path: Path) -> None:
    def fingerprint(minimum: float) -> str:
        columns = f"{{x: {{column: x_um, scale: 0.001, minimum: {minimum}}}, u: {{censored_below: 1}}}}"
        steps = config.compose([
            "pipeline=pde", f"steps.observations.path={tmp_path / 'data.csv'}", f"steps.observations.columns={columns}",
        ]).graph.steps  # fmt: skip
        return fingerprints.fingerprint(fingerprints.payload(steps["observations"], {}, lambda path: path.name))

    (tmp_path / "data.csv").touch()
    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pde")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        steps = config.compose(["pipeline=pde_debug"]).graph.steps
    found: dict[str, Any] = {"folder": folder, "steps": steps}
    for name in ("observations", "smooth", "infer", "evaluate"):
        found[name], found[f"{name}_context"] = run_stage(steps[name].stage, found, folder / name, draw=False)
    return found


def test_the_debug_pipeline_recovers_its_parameters(made: dict[str, Any]) -> None:
    results = made["evaluate"].results
    assert set(results.recovery) == {"D", "S", "A"}
    assert all(abs(one.relative_error) < 0.3 for one in results.recovery.values())
    assert results.truth["u"].rmse < 0.02
    assert results.residual_rms[0] < 0.1
    assert "D = " in made["infer_context"].highlights["parameters"]
    assert {"field_u", "residual_1", "pairs", "traces"} <= set(made["evaluate_context"].figures)
    assert "| D |" in (made["folder"] / "evaluate" / "out" / "pages" / "parameters.md").read_text()
    assert made["infer_context"].last["r_hat"] > 0.9


def test_it_serves_predictions(made: dict[str, Any]) -> None:
    client = TestClient(create(made["infer"].application().arguments))
    for example in made["infer"].examples():  # what the deploy stage asks
        assert client.request(example.method, example.path, json=example.body).status_code == example.status
    answer = client.post("/v1/predict", json={"t": [2, 10.5], "x": [20, 3]}).json()
    field = answer["components"]["u"]
    assert field["low"][0] < field["mean"][0] < field["high"][0]
    assert field["mean"][0] == pytest.approx(0.93, abs=0.15)
    assert answer["parameters"]["D"]["identified"]
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"t": [1]}, "expected {"),
        ({"t": [1], "x": []}, "x: expected a list"),
        ({"t": [1], "x": ["a"]}, "x[0]: expected a finite number"),
        ({"t": [1, 2], "x": [3]}, "different lengths"),
        ({"t": [99], "x": [3]}, "outside the range 1 to 20"),
    ],
)
def test_a_wrong_request_is_refused(made: dict[str, Any], body: Any, message: str) -> None:
    client = TestClient(create(made["infer"].application().arguments))
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_chains_that_have_not_converged_fail_the_step(made: dict[str, Any], tmp_path: Path) -> None:
    stage = made["steps"]["infer"].stage.model_copy(update={"r_hat_limit": 0.5, "samples": 8, "warmup": 4})
    with pytest.raises(StageError, match=r"have not converged: R-hat is .*r_hat_limit=null"):
        run_stage(stage, made, tmp_path / "step", draw=False)


def test_data_that_say_nothing_of_a_parameter_are_reported(made: dict[str, Any], tmp_path: Path) -> None:
    raw = made["steps"]["infer"].stage.model_dump()
    raw["equation"]["equations"] = ["u_t - (D + E)*u_xx - S*u_x - A*u = 0"]
    raw["equation"]["parameters"] = {"D": {"positive": True}, "E": {"positive": True}, "S": {}, "A": {}}
    raw |= {"sampler": "laplace", "length_share": 0.6}
    raw |= {"observations": "observations", "smoothed": "smooth"}
    posterior, context = run_stage(Infer.model_validate(raw), made, tmp_path / "step", draw=False)
    known = {name: one.identified for name, one in posterior.facts.parameters.items()}
    assert known["S"]
    assert known["A"]
    assert not (known["D"] and known["E"])
    assert "NOT identified" in context.highlights["parameters"]


def test_a_posterior_with_shorter_lengths_early_predicts_from_its_files(made: dict[str, Any], tmp_path: Path) -> None:
    raw = made["steps"]["infer"].stage.model_dump()
    raw |= {"sampler": "laplace", "length_share": 0.6, "early_share": 0.2}
    raw |= {"observations": "observations", "smoothed": "smooth"}
    posterior, _ = run_stage(Infer.model_validate(raw), made, tmp_path / "step", draw=False)
    assert posterior.facts.bases["u"].origin == pytest.approx(1 - 0.2 * 19 / 0.8)
    table = made["observations"].table()
    found = posterior.predict("u", table.points)
    assert float(np.sqrt(np.mean((np.array(found.mean) - table.truth[:, 0]) ** 2))) < 0.02


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ({"components": ["v"], "equations": ["v_t - D*v_xx = 0"]}, "the observations have u"),
        ({"components": ["u"], "equations": ["u_t - D*u_xxxx = 0"]}, None),
    ],
)
def test_an_equation_that_does_not_fit_the_data_is_refused(
    made: dict[str, Any], tmp_path: Path, equation: dict[str, Any], message: str | None
) -> None:
    fields = {"coordinates": ["t", "x"], "parameters": {"D": {"positive": True}}, **equation}
    kernel = made["steps"]["smooth"].stage.model_copy(update={"kernel": "matern_5_2", "starts": 1})
    inputs = dict(made)
    if message is None:
        inputs["smooth"], _ = run_stage(kernel, made, tmp_path / "smooth", draw=False)
        message = "choose a smoother kernel"
    stage = Infer.model_validate({"observations": "observations", "smoothed": "smooth", "equation": fields})
    with pytest.raises(StageError, match=message):
        run_stage(stage, inputs, tmp_path / "step", draw=False)
