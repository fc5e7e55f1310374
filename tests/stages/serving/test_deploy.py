import json
import shutil
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

from cluster import inline_serve
from cluster.asgi import create_application
from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.corpus import Corpus, first_words
from stages.base import Application, ArtifactError, Edge, Served, StageError
from stages.registry import STAGES
from stages.serving.deploy import Deploy
from stages.serving.deployment import DEPLOYMENT, DIRECTORY_VARIABLE, SERVE_CONFIG, Deployment
from tests.stages.corpus.examples import small_corpus
from tests.stages.model.models import byte_tokenizer, small_config, small_model
from tests.stages.serving.support import ServingContext, context, serving

CONFIG = Path(__file__).parents[3] / "conf" / "deploy"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("checkpoint")
    config = small_config(vocab_size=260)
    return Checkpoint.save(path / "model", small_model(config), config, byte_tokenizer(path / "t.json"), {"loss": 1.0})


def test_the_prompt_is_the_first_words_of_held_out_text_where_there_is_a_corpus(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    fields = {"model_name": "books", "max_tokens": 3, "max_running": 2, "trial_requests": 1, "trial_concurrency": 1}
    stage = Deploy(model=Edge("train", Checkpoint), corpus=Edge("corpus", Corpus), **fields)
    ctx = context(tmp_path / "deploy")
    deployment = stage.bind({"train": checkpoint, "corpus": corpus}).run(ctx)
    prompt = first_words(next(corpus.documents("validation")).text)
    assert ctx.highlights["completion"].startswith(prompt)
    [example] = deployment.examples()
    assert (example.path, example.body) == ("/v1/completions", {"model": "books", "prompt": prompt, "max_tokens": 3})


@pytest.fixture(scope="module")
def deployed(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, ServingContext]:
    settings = yaml.safe_load((CONFIG / "debug.yaml").read_text())
    stage = Deploy(model=Edge("train", Checkpoint), **settings).bind({"train": checkpoint})
    ctx = context(tmp_path_factory.mktemp("deploy"))
    deployment = stage.run(ctx)
    deployment.check()
    return deployment, ctx


def test_the_model_is_served_and_measured(deployed: tuple[Deployment, ServingContext]) -> None:
    deployment, ctx = deployed
    assert 0 < ctx.last["time_to_first_token_ms"] <= ctx.last["time_to_first_token_p95_ms"]
    assert ctx.last["tokens_per_second"] > 0
    assert ctx.last["concurrent_tokens_per_second"] > 0
    assert Deploy.headline in ctx.last
    assert ctx.figures == ["latency"]
    assert {path.name for path in ctx.out.iterdir()} == {DEPLOYMENT, SERVE_CONFIG, "model"}
    assert ctx.highlights["completion"].startswith("def ")
    assert len(ctx.highlights["completion"]) > len("def ")
    assert not ctx.last.keys() & deployment.describe().keys()


def test_the_deployment_is_self_contained(deployed: tuple[Deployment, ServingContext], checkpoint: Checkpoint) -> None:
    deployment, _ = deployed
    assert (deployment.model.path / "model.safetensors").read_bytes() == (
        checkpoint.path / "model.safetensors"
    ).read_bytes()
    application = deployment.application()
    body = {"model": "bloomline-debug", "prompt": "def ", "max_tokens": 8, "temperature": 0.7, "seed": 0}
    with serving(create_application(application.factory, application.arguments)) as url:
        text = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
    assert f"def  → {text}" == deployed[1].highlights["completion"]


def test_ray_serve_accepts_the_serve_config(
    deployed: tuple[Deployment, ServingContext], checkpoint: Checkpoint
) -> None:
    from ray.serve.schema import ServeDeploySchema

    deployment, _ = deployed
    for text, arguments in (
        ((deployment.path / SERVE_CONFIG).read_text(), {"directory": "."}),
        (deployment.serve_config(), {"directory": str(deployment.path.absolute())}),
    ):
        application = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications[0]
        assert application.import_path == "cluster.serve:build"
        assert application.args["arguments"] == arguments
        assert application.deployments[0].name == "Asgi"
        assert application.deployments[0].max_ongoing_requests > 2 + 8
        # The memory that the plan demands for a replica is what its actor reserves.
        demanded = Deploy(model=checkpoint, max_running=2).demand().rank
        reserved = application.deployments[0].ray_actor_options
        assert demanded is not None
        assert reserved.memory == deployment.application().resources.memory_bytes
        assert reserved.memory == pytest.approx(demanded.memory_bytes, rel=0.05)
    assert deployment.application().drain_timeout_s == deployment.application().arguments["request_timeout_s"]


def test_a_deployment_that_was_moved_is_served_by_its_serve_config(
    deployed: tuple[Deployment, ServingContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(deployed[0].path, tmp_path / "moved"))
    args = yaml.safe_load((moved / SERVE_CONFIG).read_text())["applications"][0]["args"]
    for place in ("working directory", "variable", "argument"):
        monkeypatch.chdir(moved if place == "working directory" else tmp_path)
        monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
        if place == "variable":
            monkeypatch.setenv(DIRECTORY_VARIABLE, str(moved))
        arguments = {"directory": str(moved)} if place == "argument" else args["arguments"]
        with serving(create_application(args["factory"], arguments)) as url:
            assert httpx.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "bloomline-debug"
    with pytest.raises(ArtifactError, match=rf"{tmp_path} on .* is not a deployment.*{DIRECTORY_VARIABLE}"):
        create_application(args["factory"], args["arguments"])


def test_the_tracking_finds_name_and_alias(deployed: tuple[Deployment, ServingContext]) -> None:
    described = deployed[0].describe()
    assert (described["registered_name"], described["alias"]) == ("bloomline-debug", "champion")
    json.dumps(described)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (DEPLOYMENT, None, "cannot be read"),
        (DEPLOYMENT, "{", "is not JSON"),
        (DEPLOYMENT, '{"model_name": 1}', "is not a deployment"),
        (DEPLOYMENT, "[]", "does not contain a JSON object"),
        (SERVE_CONFIG, None, "is missing"),
        ("model/config.json", "{}", "vocab_size"),
        ("model/model.safetensors", "garbage", "model.safetensors"),
    ],
)
def test_a_damaged_deployment_is_refused(
    deployed: tuple[Deployment, ServingContext], tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    copy = Deployment(Path(shutil.copytree(deployed[0].path, tmp_path / "copy")))
    copy.check()
    if content is None:
        (copy.path / name).unlink()
    else:
        (copy.path / name).write_text(content)
    with pytest.raises(ArtifactError, match=reason):
        copy.check()


def test_a_server_that_breaks_its_promises_fails_the_step(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Liar(ServingContext):
        def serve(self, application: Application) -> Served:
            return inline_serve.start(Application("liar", "tests.cluster.applications:liar"))

    ctx = context(tmp_path, Liar)
    with pytest.raises(StageError, match="lists the models"):
        Deploy(model=checkpoint).run(ctx)


@pytest.mark.parametrize("alias", ["latest", "v1", "V22", "", "a b"])
def test_aliases_that_the_registry_reserves_are_refused(alias: str) -> None:
    with pytest.raises(ValidationError):
        Deploy(model="train", alias=alias)


def test_every_config_of_the_group_is_one_of_the_stage() -> None:
    assert STAGES.load("deploy") is Deploy
    for path in CONFIG.glob("*.yaml"):
        stage = Deploy(model="train", **yaml.safe_load(path.read_text()))
        assert stage.demand().ranks == stage.replicas
