"""No secret and no value of the environment is in what a command writes or prints, wherever a configuration has it."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines import cli, config
from pipelines.plan import make
from pipelines.store import Store, StoreConfig
from pipelines.tracking import database

pytestmark = pytest.mark.usefixtures("demo_stages")

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
  b: {stage: join, texts: [a], separator: "${oc.env:OF_STEP}"}
  c: {stage: count, text: b}
"""
ENVIRONMENT = {"OF_STEP": "mark-of-step", "OF_STORE": "mark-of-store", "OF_PATH": "no-such/mark-of-path"}
STORE = [
    "store.options.secret=${oc.env:OF_STORE}",
    "store.options.key=mark-literal-key",
    "++store.options.client_kwargs={password: mark-in-mapping}",
]
MARKS = ("mark-", "6d61726b2d")  # as text and in hexadecimal

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def bloomline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_database: Path
) -> Command:
    """Runs a command line; returns its exit code and what it printed. What it wrote is below `tmp_path`."""
    for name in ("cache", "tmp", "conf/pipeline", "here"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "cache" / "bloomline").mkdir()
    shutil.copyfile(empty_database, database._template())
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE)
    monkeypatch.setattr(MemoryFileSystem, "store", {})

    def call(*words: str) -> tuple[int, str]:
        here = ["hydra.searchpath=[file://../conf]", "pipeline=small", "cluster=inline"]
        code = cli.run([*words[:1], *here, *words[1:]])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def expect_no_mark(directory: Path, *printed: str) -> None:
    """Search every byte below a directory, in the memory file system, and in texts."""
    contents = {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    contents |= {name: file.getvalue() for name, file in MemoryFileSystem.store.items()}
    contents |= {f"printed {number}": text.encode() for number, text in enumerate(printed)}
    found = [(name, mark) for name, content in contents.items() for mark in MARKS if mark.encode() in content]
    assert not found


def test_a_run_a_plan_and_a_second_run(bloomline: Command, tmp_path: Path) -> None:
    root = 'store.root="memory://user:mark-of-user@place/store?sig=mark-of-signature"'
    where = [*STORE, root, "store.state_directory=s"]
    printed = [bloomline(verb, *where) for verb in ("plan", "run", "run", "artifacts")]
    assert [code for code, _ in printed] == [0, 0, 0, 0], printed
    expect_no_mark(tmp_path, *(text for _, text in printed))
    assert "store.options.secret=${oc.env:OF_STORE}" in printed[1][1]
    assert "store.options.key=***" in printed[1][1]
    report = next((tmp_path / "here" / "s" / "runs").glob("*/report.html")).read_text()
    assert "${oc.env:OF_STEP}" in report
    assert "secret: ${oc.env:OF_STORE}" in report
    with sqlite3.connect(tmp_path / "here" / "s" / "mlflow.db") as tracked:
        values = {value for (value,) in tracked.execute("SELECT value FROM params WHERE key = 'separator'")}
    assert values == {"${oc.env:OF_STEP}"}
    assert any(name.endswith(".json") and "/records/" in name for name in MemoryFileSystem.store)


def test_a_value_of_the_environment_decides_a_fingerprint_and_store_options_do_not(
    bloomline: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert bloomline("run", *STORE, "store.root=store")[0] == 0
    monkeypatch.setenv("OF_STORE", "mark-of-another-store")
    _, plan = bloomline("plan", *STORE, "store.root=store")
    assert plan.count("cached") == 3
    monkeypatch.setenv("OF_STEP", "mark-of-another-step")
    _, changed = bloomline("plan", *STORE, "store.root=store")
    assert changed.count("cached") == 1
    assert "separator '${oc.env:OF_STEP} (sha256" in " ".join(changed.split())
    expect_no_mark(tmp_path, plan, changed)


@pytest.mark.parametrize(
    "words",
    [
        ["steps.b.trace=${oc.env:OF_PATH}/x"],  # the stage's error names it
        ["steps.b.fail=bug", "tracking=server", "tracking.uri=http://127.0.0.1:9/x?token=mark-of-tracking"],
        ["tracking=server", "tracking.uri=http://user:mark-of-password@127.0.0.1:9"],
        ["store.root=nothing://user:mark-of-password@host/x"],
        ["store.retry_s=${oc.env:OF_STORE}"],
        ["store.options.secret=a,mark-of-several"],
        ["store.options.secret=[mark-of-no-grammar"],
        ["++steps.a.password=mark-of-no-field"],
        ["steps.a.times=${oc.env:OF_STEP}"],
    ],
)
def test_what_fails(bloomline: Command, tmp_path: Path, words: list[str]) -> None:
    place = [] if any(word.startswith("store.root") for word in words) else ["store.root=store"]
    code, out = bloomline("run", *place, *words)
    assert code in (1, 2), out
    expect_no_mark(tmp_path, out)
    for trace in tmp_path.rglob("*.traceback.txt"):
        assert stat.S_IMODE(trace.stat().st_mode) == 0o600


@pytest.mark.parametrize("words", [["--cfg", "job", "--resolve"], ["--help"], ["--multirun", "steps.a.times=1,2"]])
def test_hydras_own_flags(bloomline: Command, tmp_path: Path, words: list[str]) -> None:
    code, out = bloomline("plan", *STORE, *words)
    assert code == 0
    expect_no_mark(tmp_path, out)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is sent to the dashboard of a cluster, which does not exist."""
    jobs = pytest.importorskip("cluster.jobs")
    submit = jobs.submit
    monkeypatch.setattr(jobs, "submit", lambda *given, **named: submit(*given, **named, out=sys.stdout))
    sent: list[Any] = []

    class Client:
        def submit_job(self, **job: Any) -> str:
            sent.append(job)
            return "job"

    class Followed:
        def follow(self) -> int:
            return 0

    monkeypatch.setattr("cluster.jobs.job_client", lambda url: Client())
    monkeypatch.setattr("cluster.jobs._send_project", lambda *_: "gcs://project.zip")
    monkeypatch.setattr("cluster.jobs._send_modules", lambda *_: "gcs://modules.zip")
    monkeypatch.setattr("cluster.jobs._followed", lambda *_: Followed())
    monkeypatch.setattr("cluster.jobs.expect_listener", lambda *_: None)
    return sent


def test_a_submission(bloomline: Command, tmp_path: Path, submitted: list[Any]) -> None:
    remote = ["cluster=remote", "cluster.address='http://user:mark-of-cluster@127.0.0.1:8265/?token=mark-of-token'"]
    code, out = bloomline("submit", *remote, "store.options.secret=${oc.env:OF_STORE}")
    assert code == 0, out
    expect_no_mark(tmp_path, out, repr(submitted))
    assert "store.options.secret=${oc.env:OF_STORE}" in submitted[0]["entrypoint"]
    for secret in ("store.options.secret=mark-literal", "store.root=s3://key:mark-literal@bucket"):
        code, refused = bloomline("submit", *remote, secret)
        assert code == 2
        assert "a secret, which everybody who sees the cluster's dashboard could read" in refused
        expect_no_mark(tmp_path, refused)
    assert len(submitted) == 1


def test_an_address_in_a_sweep(bloomline: Command, tmp_path: Path) -> None:
    address = 'cluster.address="http://user:mark-of-cluster@127.0.0.1:9/?token=mark-of-token"'
    code, out = bloomline("run", "--multirun", "cluster=remote", address, "steps.a.times=1,2")
    assert code == 1
    assert "127.0.0.1" in out
    expect_no_mark(tmp_path, out)


def test_an_address_without_a_scheme(bloomline: Command, tmp_path: Path) -> None:
    code, out = bloomline("plan", "cluster=remote", "cluster.address=user:mark-of-cluster@127.0.0.1:9")
    assert code == 2
    expect_no_mark(tmp_path, out)


def test_an_unreachable_cluster(bloomline: Command, tmp_path: Path) -> None:
    code, out = bloomline("attach", "job", "cluster=remote", "cluster.address=http://user:mark-of-cluster@127.0.0.1:9")
    assert code == 1
    assert "Nothing answers at cluster.address=http://***@127.0.0.1:9" in out
    expect_no_mark(tmp_path, out)


def test_a_plan_is_made_with_the_values(bloomline: Command, tmp_path: Path) -> None:
    composition = config.compose(["hydra.searchpath=[file://../conf]", "pipeline=small", *STORE])
    assert composition.settings.store.options["secret"] == "mark-of-store"
    planned = make(composition.graph, Store(StoreConfig(root=str(tmp_path / "store"))), {"b"})
    assert planned.steps["b"].payload["fields"]["separator"] == "mark-of-step"
