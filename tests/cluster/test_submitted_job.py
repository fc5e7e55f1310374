"""What a submitted job gets from the machine that submitted it."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster import submitted_job
from cluster.config import RemoteCluster
from cluster.jobs import forwarded_environment, in_job
from cluster.submitted_job import FORWARDED, JOB_CONFIG, PROJECT_VARIABLE, VERSIONS
from pipelines import provenance
from pipelines.provenance import Variant
from pipelines.redaction import shown_config


def be_a_job(monkeypatch: pytest.MonkeyPatch, **metadata: str) -> None:
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": metadata}))


def test_the_run_of_a_job_is_of_who_submitted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    be_a_job(
        monkeypatch,
        user="ana",
        git_commit="c0ffee",
        git_dirty="yes",
        address="http://head:8265",
        submitted="pipeline=books cluster.entrypoint_cpus=0",
    )
    made = provenance.collect("run", ["pipeline=books", "cluster=remote", "cluster.address=auto"], Variant(""))
    assert (made.user, made.git_commit, made.git_dirty) == ("ana", "c0ffee", True)
    again = "submit pipeline=books cluster.entrypoint_cpus=0 cluster=remote cluster.address=http://head:8265"
    assert made.command.endswith(again)
    assert provenance.command("plan", ["pipeline=books", "cluster=remote"]).endswith("plan pipeline=books")


def test_what_the_cluster_lacks_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"python": platform.python_version()}
    be_a_job(monkeypatch, **{VERSIONS: json.dumps(same)})
    assert submitted_job.lacking() == ""
    be_a_job(monkeypatch, **{VERSIONS: json.dumps({**same, "ray": "1.0", "no-such-package": "1"})})
    said = submitted_job.lacking()
    assert "lacks no-such-package and has ray " in said
    assert "instead of 1.0" in said


def test_installed_versions_name_python_and_ray() -> None:
    found = submitted_job.installed_versions()
    assert found["python"] == platform.python_version()
    assert "ray" in found
    assert "bloomline" not in found


def test_forwarded_variables_reach_a_job_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ONE", "AWS_TWO", "OTHER_AWS"):
        monkeypatch.setenv(name, "value of it")
    chosen = forwarded_environment(["AWS_O*", "ABSENT"])
    assert chosen == {"AWS_ONE": "value of it"}
    monkeypatch.setenv("AWS_ONE", "that of the node")
    (tmp_path / FORWARDED).write_text(json.dumps({"variables": chosen}))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv(PROJECT_VARIABLE, raising=False)
    submitted_job.take_forwarded_environment()
    assert os.environ["AWS_ONE"] == "that of the node", "a file next to a process that is not of a job is not read"
    monkeypatch.setenv(PROJECT_VARIABLE, "project")
    submitted_job.take_forwarded_environment()
    assert os.environ["AWS_ONE"] == "value of it"


def test_the_command_of_a_job_has_no_runtime_environment() -> None:
    given = ["pipeline=a", "+cluster.runtime_env.env_vars.TOKEN=abc", "cluster.forward_env=[AWS_*]"]
    assert in_job(given) == ["pipeline=a", "cluster=remote", "cluster.address=auto"]


@pytest.mark.parametrize(
    ("fields", "says"), [({"pipp": ["x"]}, "pipp: expected fields"), ({"env_vars": {"A": 1}}, "names with strings")]
)
def test_a_runtime_environment_is_checked(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RemoteCluster(runtime_env=fields)


def test_variables_of_a_runtime_environment_are_not_shown() -> None:
    shown = shown_config({"cluster": {"runtime_env": {"env_vars": {"A": "secret", "B": "${oc.env:B}"}}}})
    assert shown == {"cluster": {"runtime_env": {"env_vars": {"A": "***", "B": "${oc.env:B}"}}}}
