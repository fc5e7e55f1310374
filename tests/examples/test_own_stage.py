"""A stage in a package of the user's project."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.examples.conftest import Project
from tests.project.support import plain_installation

RUN = ("run", "--config-dir", "conf", "pipeline=own_stage")


def test_the_stage_runs_and_an_edit_of_its_source_runs_it_again(project: Project) -> None:
    project(*RUN, "cluster=inline")
    assert project.records()["time"][0].metrics["minutes"] > 0
    assert "Everything is cached" in project(*RUN, "cluster=inline", "steps.time.workers=2")
    source = project.directory / "reading_time" / "stage.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert "Everything is cached" not in project(*RUN, "cluster=inline")
    assert len(project.records()["time"]) == 2


def test_it_needs_no_extra(project: Project) -> None:
    result = plain_installation(project.directory, *RUN, "cluster=inline")
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.records()["time"][0].metrics["minutes"] > 0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("own_ray")
def test_the_stage_runs_on_ray(project: Project) -> None:
    project(*RUN, "steps.time.workers=2")
    assert project.records()["time"][0].metrics["minutes"] > 0


def test_its_own_tests_pass(project: Project) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = {**project.variables, "PYTHONPATH": f"{project.variables['PYTHONPATH']}:{project.directory}"}
    done = subprocess.run(command, cwd=project.directory, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
