"""The whole life of a model at the debug size, with the command that a person would type, on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.store import Store, StoreConfig
from tests.end_to_end.conftest import CommandLine
from tests.stages.huggingface.examples import checkpoint, exported
from tests.support import wait_for_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = {"corpus", "tokenizer", "tokens", "pretrain", "moe", "quantize", "evaluate", "deploy", "export"}
IMPORTED = [  # pipeline=import at the debug size
    f"{group}@steps.{group}=debug" for group in ("corpus", "tokens", "quantize", "evaluate", "deploy")
]


def test_the_whole_life(bloomline: CommandLine) -> None:
    code, out = bloomline("run", "pipeline=debug", timeout_s=400)
    assert code == 0, out
    store = Store(StoreConfig(root=str(bloomline.store)))
    records = {record.step: record for record in store.records()}
    assert set(records) == STEPS
    assert all(store.inspect(record, thorough=True) == [] for record in records.values())
    assert records["pretrain"].metrics["validation_loss"] > 0
    assert records["moe"].metrics["conversion_logit_difference"] < 1e-5
    assert "completion" in " ".join(records["deploy"].highlights).lower()
    completion = next(text for title, text in records["deploy"].highlights.items() if "completion" in title.lower())
    assert completion.strip().splitlines()[0].strip() in out
    report = next(bloomline.store.glob("runs/*/report.html")).read_text()
    assert all(step in report for step in STEPS)
    assert "<svg" in report

    from mlflow import MlflowClient

    wait_for_mlflow(bloomline.store)
    client = MlflowClient(f"sqlite:///{bloomline.store}/mlflow.db")
    experiment = client.get_experiment_by_name("debug")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert len(children) == len(STEPS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    training = next(run for run in children if run.info.run_name.endswith("pretrain"))
    assert len(client.get_metric_history(training.info.run_id, "loss/loss")) == 20
    assert any(file.path.endswith(".png") for file in client.list_artifacts(training.info.run_id, "figures"))
    assert len(client.search_registered_models()) == 1
    assert client.search_registered_models()[0].aliases

    code, out = bloomline("run", "pipeline=debug")
    assert code == 0
    assert "Everything is cached" in out
    assert completion.strip().splitlines()[0].strip() in out
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)

    deployment = json.loads((Path(store.uri(records["deploy"])) / "deployment.json").read_text())
    assert deployment["model_name"]

    # The exported model is imported like one from another source, with the same weights.
    source = f"steps.model.source.path={store.uri(records['export'])}"
    code, out = bloomline("run", "pipeline=import", *IMPORTED, source, "cluster=inline", "until=evaluate")
    assert code == 0, out
    imported = {record.step: record for record in store.records() if record.stage == "import"}["model"]
    weights = [Path(store.uri(record)) / "model.safetensors" for record in (records["pretrain"], imported)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_of_two_runs_at_once_one_computes_and_the_other_takes_the_result(bloomline: CommandLine) -> None:
    words = ["run", "pipeline=debug", "until=tokens", "cluster=inline"]
    processes = [bloomline.start(*words) for _ in range(2)]
    outs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    made = [path.name.split("-")[0] for path in (bloomline.store / "artifacts").glob("*/*")]
    assert sorted(made) == ["corpus", "tokenizer", "tokens"]
    assert not list((bloomline.store / "leases").iterdir())


def test_every_pipeline_composes_and_plans(bloomline: CommandLine) -> None:
    from pipelines.config import pipelines_available

    model = exported(bloomline.directory / "export", checkpoint(bloomline.directory, "llama")).path
    for name in ("text.jsonl", "page.warc", "code.py"):
        (bloomline.directory / name).touch()
    given = {"catalogue": "/text.jsonl", "oscar": "/text.jsonl", "pseudo_crawl": "/page.warc", "code": ""}
    needed = {
        "import": [f"steps.model.source.path={model}"],
        "finetune": [
            f"steps.model.source.path={model}",
            f"steps.corpus.sources.files.reader.paths=['{bloomline.directory}/text.jsonl']",
        ],
        "second_language": [
            f"steps.{name}.sources.files.reader.paths=['{bloomline.directory}/text.jsonl']"
            for name in ("first", "second")
        ],
        **{key: [f"text={bloomline.directory}/text.jsonl"] for key in ("text", "text_debug")},
        "finetune_own": [f"steps.text.sources.files.reader.paths=['{bloomline.directory}/text.jsonl']"],
        "bloom": [
            f"steps.corpus.sources.{source}.reader.paths=['{bloomline.directory}{name}']"
            for source, name in given.items()
        ],
    }
    assert {"quickstart", "debug", *needed} <= set(pipelines_available())
    for name in pipelines_available():
        large = ["cluster.cpus=64", "cluster.gpus=32", "cluster.memory_bytes=1000000000000"]
        code, out = bloomline("plan", f"pipeline={name}", *large, *needed.get(name, []))
        assert code == 0, out
        assert "never run" in out
