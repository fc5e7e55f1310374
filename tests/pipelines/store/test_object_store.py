"""The example of docs/store.md: a bucket whose address and credentials come from the environment, also in a job."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from cluster.config import RemoteCluster
from cluster.jobs import forwarded_environment
from cluster.submitted_job import FORWARDED, PROJECT_VARIABLE, take_forwarded_environment
from pipelines import config
from pipelines.store import Store
from tests.pipelines.support import s3_config
from tests.project.support import ROOT


def test_a_job_uses_the_bucket_with_the_variables_that_were_forwarded(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (ROOT / "docs" / "store.md").read_text().split("## An object store")[1].split("## A group")[0]
    submitted = re.search(r"bloomline submit (.*\n.*)\n```", section)
    assert submitted
    overrides = [*shlex.split(submitted[1].replace("\\\n", "")), f"store.state_directory={tmp_path / 'state'}"]
    exported = dict(word.split("=", 1) for word in re.findall(r"AWS_\w+=\S+", section))
    for name, value in {**exported, "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    settings = config.compose(overrides).settings
    assert isinstance(settings.cluster, RemoteCluster)
    forwarded = forwarded_environment(settings.cluster.forward_env)
    assert forwarded.keys() >= exported.keys()

    for name in forwarded:  # the driver of the job, on a node that has none of them
        monkeypatch.delenv(name)
    monkeypatch.setenv(PROJECT_VARIABLE, "project")
    (tmp_path / FORWARDED).write_text(json.dumps({"variables": forwarded}))
    monkeypatch.chdir(tmp_path)
    take_forwarded_environment()
    store = Store(config.compose(overrides).settings.store)
    assert store.config.options["endpoint_url"] == s3
    s3_config(s3, "team", tmp_path)  # the bucket of the example
    store.expect_writable()
    store.files.write("runs/one/run.json", b"{}")
    assert store.files.read("runs/one/run.json") == b"{}"
