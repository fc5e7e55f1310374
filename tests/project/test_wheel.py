"""The files of the wheel, and what an installation without extras can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.support import ROOT, plain_installation, plain_process

ROOTS = {"bloomline.py", "conf", "pipelines", "cluster", "hydra_plugins", "stages"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_every_shipped_file(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    shipped = {name for name in tracked if name.partition("/")[0] in ROOTS}
    assert "conf/config.yaml" in shipped
    assert shipped <= names


def test_the_wheel_plans_where_nothing_else_is_there(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "bloomline", "plan", "pipeline=debug"],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "never run" in result.stdout


@pytest.mark.parametrize("package", ["pipelines", "cluster", "stages"])
def test_the_packages_declare_their_types(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_a_plain_installation_plans(tmp_path: Path) -> None:
    result = plain_installation(tmp_path, "plan", "pipeline=quickstart")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_step_without_its_extra_is_refused_with_the_command(tmp_path: Path) -> None:
    result = plain_installation(tmp_path, "run", "pipeline=debug", "cluster=inline", "only=corpus")
    text = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 1, text
    assert "pip install 'bloomline[corpus]'" in text
    assert "pip install 'bloomline[tracking]'" in text  # a note: the run is spooled
    assert "Traceback" not in text


def test_the_live_page_needs_no_extra_and_names_that_of_mlflow(tmp_path: Path) -> None:
    with plain_process(tmp_path, "ui") as process:
        assert process.stdout
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert lines[0].startswith("Runs: http://127.0.0.1:")
    assert lines[1].startswith("MLflow is not shown: ")
    assert lines[1].strip().endswith("Install it with: pip install 'bloomline[tracking]'")
