"""A user-defined artifact is deployed by the stage that deploys language models."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

from cluster import inline_serve
from stages import registry
from stages.artifacts.checkpoint import Checkpoint
from stages.base import Application, Artifact, ArtifactError, Edge, ExampleRequest, Served, StageError
from stages.serving.deploy import Deploy
from stages.serving.deployment import DEPLOYMENT, FACTORY, MODEL, SERVE_CONFIG, Deployment
from tests.end_to_end.conftest import CommandLine, end
from tests.stages.serving.greeter import Greeter, MakeGreeter
from tests.stages.serving.support import ServingContext, context
from tests.support import run_stage, wait_for_mlflow


@pytest.fixture(scope="module")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> Greeter:
    artifact, _ = run_stage(MakeGreeter(word="good morning"), {}, tmp_path_factory.mktemp("greeter"))
    assert isinstance(artifact, Greeter)
    return artifact


def deploy(greeter: Greeter, ctx: ServingContext) -> Deployment:
    stage = Deploy(
        model=Edge("make", Greeter),
        model_name="my-greeter",
        alias="candidate",
        cpus_per_replica=0.5,
        trial_requests=4,
        trial_concurrency=2,
    )
    deployment = stage.bind({"make": greeter}).run(ctx)
    deployment.check()
    return deployment


@pytest.fixture(scope="module")
def deployed(greeter: Greeter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, ServingContext]:
    ctx = context(tmp_path_factory.mktemp("deploy"))
    return deploy(greeter, ctx), ctx


def test_examples_are_checked_and_timed(deployed: tuple[Deployment, ServingContext]) -> None:
    deployment, ctx = deployed
    assert ctx.highlights["POST /greet"] == "name: Ada\n→ text: good morning, Ada"
    assert 0 < ctx.last["latency_ms"] <= ctx.last["latency_p95_ms"]
    assert ctx.last["concurrency"] == 2
    assert ctx.last["concurrent_requests_per_second"] > 0
    assert ctx.figures == ["latency"]
    assert ctx.progressed == [(4, 8), (8, 8)]
    assert not (deployment.path / "figures").exists()


def test_the_step_decides_how_the_artifacts_own_application_runs(
    deployed: tuple[Deployment, ServingContext], greeter: Greeter
) -> None:
    found, own = deployed[0].application(), greeter.application()
    assert (found.name, found.resources.cpus) == ("my-greeter", 0.5)
    assert (found.factory, found.max_ongoing_requests) == (own.factory, own.max_ongoing_requests)
    assert found.resources.memory_bytes == own.resources.memory_bytes
    assert found.arguments == {"path": str(deployed[0].path.absolute() / MODEL)}


def test_the_deployment_is_served_from_its_own_directory(deployed: tuple[Deployment, ServingContext]) -> None:
    served = inline_serve.start(Deployment(deployed[0].path).application())
    try:
        assert httpx.post(f"{served.url}/greet", json={"name": "Bo"}).json() == {"text": "good morning, Bo"}
    finally:
        served.stop()


def test_serve_yaml_and_the_facts_that_the_tracking_registers(
    deployed: tuple[Deployment, ServingContext], greeter: Greeter
) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load((deployed[0].path / SERVE_CONFIG).read_text())
    application = ServeDeploySchema.model_validate(config).applications[0]
    assert application.args == {
        "factory": "stages.serving.deployment:create",
        "arguments": {"directory": "."},
    }
    described = deployed[0].describe()
    assert (described["registered_name"], described["alias"]) == ("my-greeter", "candidate")
    assert described["artifact"] == "tests.stages.serving.greeter:Greeter"
    assert "max_running" not in described
    assert Greeter.is_model
    assert not Deployment.is_model


@pytest.mark.ray
@pytest.mark.slow
def test_it_is_deployed_over_ray(ray_session: object, greeter: Greeter, tmp_path: Path) -> None:
    from cluster import serve

    class RayContext(ServingContext):
        def serve(self, application: Application) -> Served:
            return serve.start(application)

    ctx = context(tmp_path, RayContext)
    deploy(greeter, ctx)
    assert ctx.highlights["POST /greet"] == "name: Ada\n→ text: good morning, Ada"
    assert ctx.last["latency_ms"] > 0


PIPELINE = """\
# @package _global_
name: greeter
steps:
  make: {stage: "tests.stages.serving.greeter:MakeGreeter", word: good evening}
  deploy: {stage: deploy, model: make, model_name: my-greeter, trial_requests: 2, trial_concurrency: 1}
"""


@pytest.mark.slow
def test_the_command_line_deploys_registers_and_serves_it(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "greeter.yaml").write_text(PIPELINE)
    command_line = CommandLine(tmp_path)
    process = command_line.start("serve", "--config-dir", str(tmp_path / "conf"), "pipeline=greeter", "cluster=inline")
    try:
        assert process.stdout is not None
        url, output = None, ""
        while url is None:
            line = process.stdout.readline()
            assert line, output
            output += line
            url = next((word for word in line.split() if word.startswith("http://127.0.0.1")), None)
        printed = [process.stdout.readline() for _ in range(10)]
        assert any(line.startswith(f"curl {url}/greet -H") for line in printed)
        assert not any("openai" in line for line in printed)
        assert httpx.post(f"{url}/greet", json={"name": "Ada"}).json() == {"text": "good evening, Ada"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read().endswith("drained, stopped.\n")
    finally:
        end(process)
    wait_for_mlflow(command_line.store)
    database = f"sqlite:///{command_line.store}/mlflow.db"
    (model,) = MlflowClient(database, registry_uri=database).search_registered_models()
    assert (model.name, list(model.aliases)) == ("my-greeter", ["champion"])


@pytest.mark.slow
def test_a_field_of_a_language_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "greeter.yaml").write_text(PIPELINE)
    code, output = CommandLine(tmp_path)(
        "plan", "--config-dir", str(tmp_path / "conf"), "pipeline=greeter", "steps.deploy.prompt=hello"
    )
    assert code != 0
    assert "prompt: only a Checkpoint has a use for this, not a Greeter.\n" in output


@dataclass(frozen=True)
class Wrong(Greeter):
    """Expects a response that its application does not give."""

    def examples(self) -> Sequence[ExampleRequest]:
        def refuse(answer: bytes) -> None:
            raise ValueError("not the answer")

        def look(answer: bytes) -> None:
            json.loads(answer)["absent"]

        return {
            "key": [ExampleRequest("POST", "/greet", {"name": "Ada"}, check=look)],
            "status": [ExampleRequest("POST", "/greet", {"name": "Ada"}, status=201)],
            "answer": [ExampleRequest("POST", "/greet", {"name": "Ada"}, check=refuse)],
            "nothing": [],
        }[self.word]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("status", "POST /greet was answered with status 200, expected 201"),
        ("answer", "the answer to POST /greet is not as expected: ValueError: not the answer"),
        ("key", "the answer to POST /greet is not as expected: KeyError: 'absent'"),
        ("nothing", "Wrong has no example requests"),
    ],
)
def test_an_application_that_does_not_answer_as_expected_fails_the_step(
    word: str, message: str, tmp_path: Path
) -> None:
    wrong, _ = run_stage(MakeGreeter(word=word), {}, tmp_path / "make")
    with pytest.raises(StageError, match=message):
        Deploy(model=Wrong(wrong.path)).run(context(tmp_path / "deploy"))


@dataclass(frozen=True)
class WithPath(Greeter):
    """Its arguments are not JSON."""

    def application(self) -> Application:
        return Application("greeter", "tests.stages.serving.greeter:create", {"path": self.path})


def test_arguments_that_are_not_json_are_refused(greeter: Greeter, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"WithPath\.application\(\) has arguments that are not JSON values"):
        Deploy(model=WithPath(greeter.path)).run(context(tmp_path))


def test_a_type_that_no_module_has_is_refused(greeter: Greeter, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Local(Greeter):
        pass

    with pytest.raises(StageError, match="define it at the top level of a module"):
        Deploy(model=Local(greeter.path)).run(context(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:Greeter", "is not declared to bloomline"),
        ("os:system", "is not the type of a servable artifact"),
        ("subprocess:Popen", "is not the type of a servable artifact"),
        ("antigravity:Greeter", "is not declared to bloomline"),
        ("undeclared_artifacts:Greeter", "is not declared to bloomline.*BLOOMLINE_PACKAGES=undeclared_artifacts"),
        ("undeclared_artifacts.deeper:Greeter", "is not declared to bloomline"),
        ("tests.stages.serving.greeter:Nothing", "cannot be imported"),
        ("tests.stages.serving.greeter:create", "is not the type of a servable artifact"),
        ("", "is not declared to bloomline"),
        ("broken_artifacts:Greeter", r"cannot be imported \(RuntimeError: broken\)"),
    ],
)
def test_a_deployment_of_an_unknown_type_is_refused(
    deployed: tuple[Deployment, ServingContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: str,
) -> None:
    (tmp_path / "broken_artifacts.py").write_text("raise RuntimeError('broken')")
    (tmp_path / "undeclared_artifacts.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.setenv("BLOOMLINE_PACKAGES", "other, broken_artifacts")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = json.loads((deployed[0].path / DEPLOYMENT).read_text())
    (tmp_path / DEPLOYMENT).write_text(json.dumps(content | {"artifact": name}))
    with pytest.raises(ArtifactError, match=message):
        Deployment(tmp_path).application()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("declared_by", ["variable", "project", "installed package"])
def test_a_deployment_outside_of_a_run_is_served_if_its_package_is_declared(
    declared_by: str,
    deployed: tuple[Deployment, ServingContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = "from tests.stages.serving.greeter import Greeter as Base\n\n\nclass Greeter(Base):\n    pass\n"
    package = f"mine_{declared_by.split()[0]}"
    (tmp_path / f"{package}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_user_packages", registry._UserPackages())
    content = json.loads((deployed[0].path / DEPLOYMENT).read_text())
    (tmp_path / DEPLOYMENT).write_text(json.dumps(content | {"artifact": f"{package}:Greeter"}))
    with pytest.raises(ArtifactError, match="is not declared"):
        Deployment(tmp_path).application()
    if declared_by == "variable":
        monkeypatch.setenv("BLOOMLINE_PACKAGES", package)
    elif declared_by == "project":
        registry.use_packages(tmp_path, [package])
    else:
        monkeypatch.setattr(registry, "_declared_by_installed", lambda: frozenset({package}))
    assert Deployment(tmp_path).application().factory == "tests.stages.serving.greeter:create"


@pytest.mark.parametrize("factory", ["os:system", "subprocess:run", "tests.stages.serving.greeter:create", "", "a"])
def test_a_serve_config_names_no_other_factory(factory: str) -> None:
    from cluster.serve import BuildArguments

    with pytest.raises(ValidationError, match=r"stages\.serving\.deployment:create"):
        BuildArguments.model_validate({"factory": factory, "arguments": {}})
    BuildArguments.model_validate({"factory": FACTORY, "arguments": {"directory": "."}})


@pytest.mark.parametrize(("kind", "refused"), [(Greeter, True), (Checkpoint, False), (None, False)])
def test_fields_of_a_language_model_are_refused_for_others_when_the_pipeline_is_read(
    kind: type[Artifact] | None, refused: bool
) -> None:
    stage = Deploy(model="make", prompt="x", max_running=4).with_forecasts({}, {"make": kind} if kind else {})
    if not refused:
        assert stage.demand().ranks == 1
        return
    with pytest.raises(StageError, match="max_running, prompt: only a Checkpoint has a use for this, not a Greeter"):
        stage.demand()
