"""A run that is submitted to a Ray head with token authentication, and one that joins the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.ray_node import TOKEN, ray_head
from tests.examples.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.xdist_group("own_ray"), pytest.mark.timeout(420)]


def test_a_submitted_job_and_a_run_that_joins_share_the_store(project: Project, tmp_path: Path) -> None:
    inside = Project(project.directory, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
    common = ("--config-dir", "conf", "pipeline=on_cluster", "cluster=remote")
    small = "cluster.entrypoint_cpus=0"  # this head has two CPUs, which the gang needs
    home = tmp_path / "home"
    home.mkdir()
    with ray_head(home) as head:
        root = f"store.root={project.directory}/.bloomline"
        inside("submit", *common, f"cluster.address={head.dashboard}", root, small, timeout_s=360)
        assert set(project.records()) == {"corpus", "tokenizer", "tokens", "pretrain"}
        assert "Everything is cached" in inside("run", *common, f"cluster.address={head.gcs}")
