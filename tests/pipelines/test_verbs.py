"""After a run, the next commands are about what it selected and where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import submitted_job
from pipelines.verbs import _next_commands
from tests.pipelines import samples


def test_the_next_plan_overrides_the_learning_rate_once(tmp_path: Path) -> None:
    done = samples.run(tmp_path, steps=(replace(samples.step("train"), stage="pretrain"),))
    plan = _next_commands(done, ["++steps.train.learning_rate=2e-3", "seed=1"])[1]
    assert plan.endswith("plan seed=1 steps.train.learning_rate=1e-3")


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
