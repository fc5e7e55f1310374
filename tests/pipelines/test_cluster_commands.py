"""`bloomline jobs`: what is refused before a cluster is asked for anything more."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster import job_list
from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.job_list import Job
from pipelines import cluster_commands, verbs
from pipelines.errors import BloomlineError
from pipelines.session import Session
from stages.base import Servable

ADDRESS = ["cluster=remote", "cluster.address=http://127.0.0.1:9"]


def known(monkeypatch: pytest.MonkeyPatch, state: str, **metadata: str) -> None:
    """The cluster knows one job, `job-1`."""
    monkeypatch.setattr(job_list, "_client", lambda config: Client())
    monkeypatch.setattr(job_list, "_jobs", lambda config, client: [Job("job-1", state, 1.0, 0.0, metadata)])


class Client:
    def stop_job(self, name: str) -> None:
        pass


def test_a_job_is_retried_in_its_own_project_only(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[list[str]] = []

    def submit(overrides: list[str], composed: Any, session: Session) -> int:
        submitted.append(overrides)
        return 0

    monkeypatch.setattr(verbs, "submit", submit)
    known(monkeypatch, "FAILED", pipeline="mine", submitted="store.root=s")
    with pytest.raises(BloomlineError, match="job-1 ran the pipeline mine, and the same command runs quickstart here"):
        cluster_commands.jobs(["retry", "job-1"], ADDRESS, None, Session())
    known(monkeypatch, "FAILED", pipeline="debug", submitted="pipeline=debug store.root=s")
    assert cluster_commands.jobs(["retry", "job-1"], ADDRESS, None, Session()) == 0
    assert submitted == [["pipeline=debug", "store.root=s", *ADDRESS]]


def test_a_job_that_has_not_ended_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, "RUNNING", submitted="")
    with pytest.raises(ClusterError, match=r"job-1 is running\. Only a job that has ended is submitted again"):
        cluster_commands.jobs(["retry", "job-1"], ADDRESS, None, Session())
    known(monkeypatch, "FAILED")
    with pytest.raises(ClusterError, match="was not submitted by `bloomline submit`"):
        cluster_commands.jobs(["retry", "job-1"], ADDRESS, None, Session())


def test_after_a_stop_the_next_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, "RUNNING")
    out = io.StringIO()
    monkeypatch.setattr(job_list, "dashboard", lambda config: config.address)
    assert job_list.stop(RemoteCluster(address="http://head:8265"), "job-1", out=out) == 0
    where = "cluster=remote cluster.address=http://head:8265"
    assert f"bloomline jobs logs job-1 --follow {where} " in out.getvalue()
    assert f"bloomline jobs retry job-1 {where} " in out.getvalue()


def test_the_nearest_kind_of_manifest_is_named() -> None:
    with pytest.raises(BloomlineError, match=r"RayCluster\|RayJob\|RayService\. Did you mean 'RayJob'\?"):
        cluster_commands.manifest(["kind=RayJb", "cluster=remote"], None, Session())


def test_a_manifest_needs_no_address() -> None:
    with pytest.raises(BloomlineError, match="describes a new cluster: add cluster=remote, without an address"):
        cluster_commands.manifest(["kind=RayJob", "pipeline=debug"], None, Session())


def test_the_job_of_a_project_runs_its_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.bloomline]\npipeline = "debug"\n')
    monkeypatch.chdir(tmp_path)
    assert cluster_commands.manifest(["kind=RayJob", "cluster=remote"], None, Session()) == 0
    out, err = capsys.readouterr()
    job = yaml.safe_load(out)["spec"]
    assert job["entrypoint"] == "bloomline run pipeline=debug cluster=remote cluster.address=auto"
    assert err.startswith("Note: store.root=.bloomline is in a pod, and ends with it. Give a directory below /shared ")
    assert cluster_commands.manifest(["kind=RayJob", "cluster=remote", "store.root=/shared/s"], None, Session()) == 0
    assert not capsys.readouterr().err


def test_a_service_serves_the_deployment_and_not_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(name: str, kind: type[Servable], state: str) -> Any:
        record = SimpleNamespace(location=name) if state == "cached" else None
        return SimpleNamespace(step=SimpleNamespace(name=name, produces=kind), state=state, record=record)

    class Model(Servable):
        pass

    class Deployment(Servable):
        is_model = False

    (tmp_path / "deploy").mkdir()
    applications = [{"name": "x", "args": {"arguments": {"directory": "elsewhere"}}}]
    served = {"http_options": {"host": "127.0.0.1"}, "applications": applications}
    (tmp_path / "deploy" / "serve.yaml").write_text(yaml.safe_dump(served))
    steps = {"train": step("train", Model, "cached"), "deploy": step("deploy", Deployment, "cached")}
    store = SimpleNamespace(config=SimpleNamespace(is_local=True, local_root=tmp_path))
    prepared = SimpleNamespace(plan=SimpleNamespace(steps=steps), store=store)
    monkeypatch.setattr(verbs, "prepare", lambda overrides, composed, session: prepared)
    given = ["kind=RayService", "cluster=remote", f"store.root={tmp_path}"]
    assert cluster_commands.manifest(given, None, Session()) == 0
    service = yaml.safe_load(yaml.safe_load(capsys.readouterr().out)["spec"]["serveConfigV2"])
    assert service["applications"][0]["args"]["arguments"]["directory"] == str(tmp_path / "deploy")
    steps["deploy"] = step("deploy", Deployment, "run")
    with pytest.raises(BloomlineError, match="deploy is not in the store: run the pipeline first"):
        cluster_commands.manifest(given, None, Session())
