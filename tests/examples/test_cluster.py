"""A run that is submitted to a Ray head with token authentication, and one that joins the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_jobs import TOKEN, Head, free_port, ray_node
from tests.examples.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.xdist_group("own_ray"), pytest.mark.timeout(420)]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    gcs, dashboard, client = (free_port() for _ in range(3))
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    options = ["--head", *ports, "--dashboard-host=127.0.0.1", "--include-dashboard=true", "--num-cpus=3"]
    home = tmp_path / "home"
    home.mkdir()
    with ray_node(home, "example", options):
        yield Head(dashboard=f"http://127.0.0.1:{dashboard}", gcs=f"127.0.0.1:{gcs}")


def test_a_submitted_job_and_a_run_that_joins_share_the_store(project: Project, head: Head) -> None:
    inside = Project(project.directory, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
    common = ("--config-dir", "conf", "pipeline=on_cluster", "cluster=remote")
    root = f"store.root={project.directory}/.bloomline"
    inside("submit", *common, f"cluster.address={head.dashboard}", root, timeout_s=360)
    assert set(project.records()) == {"corpus", "tokenizer", "tokens", "pretrain"}
    joined = inside("run", *common, f"cluster.address={head.gcs}")
    assert "Everything is cached" in joined
