"""What a run leaves for its user: the next commands, about what it selected and where it is, and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import submitted_job
from pipelines.errors import BloomlineError
from pipelines.run_history import report_path
from pipelines.session import Session
from pipelines.store import Store
from pipelines.verbs import _next_commands, prepare, write_report
from tests.pipelines import samples


def test_the_next_plan_overrides_the_learning_rate_once(tmp_path: Path) -> None:
    done = samples.run(tmp_path, steps=(replace(samples.step("train"), stage="pretrain"),))
    plan = _next_commands(done, ["++steps.train.learning_rate=2e-3", "seed=1"])[1]
    assert plan.endswith("plan seed=1 steps.train.learning_rate=1e-3")


def test_a_learning_rate_that_was_just_used_is_not_proposed(tmp_path: Path) -> None:
    done = samples.run(tmp_path, steps=(replace(samples.step("train"), stage="pretrain"),))
    plan = _next_commands(done, ["steps.train.learning_rate=1e-3"])[1]
    assert plan.endswith("plan steps.train.learning_rate=5e-4")


def test_after_a_failure_the_last_command_resumes_it(tmp_path: Path) -> None:
    failed = samples.run(tmp_path, state="failed", steps=(samples.step("train", state="failed"),))
    commands = _next_commands(failed, ["pipeline=books", "store.root=there"])
    ends = ["logs run-1 train", "ui store.root=there", "run pipeline=books store.root=there"]
    assert [found.partition("bloomline ")[2] for found in commands] == ends


def test_the_next_commands_are_about_the_steps_that_were_selected(tmp_path: Path) -> None:
    trained, deployed = samples.step("train", stage="pretrain"), samples.step("deploy", state="unselected")
    done = samples.run(tmp_path, steps=(trained, deployed))
    listed, plan, _ = _next_commands(done, ["pipeline=books", "until=train", "force=train"])
    assert listed.endswith("artifacts list")
    assert plan.endswith("plan pipeline=books until=train steps.train.learning_rate=1e-3")
    whole = replace(done, steps=(trained, replace(deployed, state="done")))
    assert _next_commands(whole, ["from=train"])[0].endswith("serve from=train")


def test_after_a_submitted_job_the_first_command_finds_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(submitted_job.JOB_CONFIG, "{}")
    commands = _next_commands(samples.run(tmp_path), ["store=s3", "store.root=s3://team/store"])
    assert commands[0].endswith("runs show run-1 store=s3 store.root=s3://team/store")


class Attached:
    """A run in MLflow that takes files."""

    url = None

    def __init__(self) -> None:
        self.files: list[Path] = []

    def attach(self, file: Path) -> None:
        self.files.append(file)


def test_an_object_store_has_a_copy_of_the_report(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = s3_store, samples.run(tmp_path)
    tracking: Any = Attached()
    report, notes = write_report(run, store, tracking)
    assert report is not None
    assert report == tmp_path / "state" / report_path(run.run_id)
    assert store.files.read(report_path(run.run_id)) == report.read_bytes()
    assert (notes, tracking.files) == ([], [report])

    def refuse(path: str, content: bytes) -> None:
        raise OSError("the bucket is read-only")

    monkeypatch.setattr(store.files, "write", refuse)
    assert write_report(run, store, tracking)[1] == ["The report is not in the store: the bucket is read-only"]


def test_a_text_that_is_nowhere_is_said_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BloomlineError) as refused:
        prepare(["pipeline=text", "text=nowhere"], None, Session())
    assert str(refused.value) == f"text: no file matches {tmp_path / 'nowhere'}"
    (tmp_path / "here.txt").write_text("here")
    with pytest.raises(BloomlineError) as refused:
        prepare(["pipeline=text", "text=[here.txt,nowhere]"], None, Session())
    assert str(refused.value) == f"text: no file matches {tmp_path / 'nowhere'}"
