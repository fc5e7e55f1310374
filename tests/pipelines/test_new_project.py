"""`bloomline new`: what it writes runs at once, and its own test passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.errors import BloomlineError
from pipelines.new_project import package_name


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["new", "Word counts"]) == 0
    assert "cd 'Word counts' && bloomline run" in capsys.readouterr().out
    return tmp_path / "Word counts"


def call(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(project / "cache")},
        capture_output=True,
        text=True,
    )


def test_a_new_project_runs_at_once_and_again_after_its_source_changed(project: Path, empty_database: Path) -> None:
    (project / ".bloomline").mkdir()
    shutil.copy(empty_database, project / ".bloomline" / "mlflow.db")
    done = call(project, "-m", "bloomline", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "word_counts: done" in done.stdout
    (counts,) = (project / ".bloomline" / "artifacts").rglob("counts.json")
    assert json.loads(counts.read_text())["the"] == 4
    assert "cached" in call(project, "-m", "bloomline", "plan").stdout
    stage = project / "word_counts" / "count_words.py"
    stage.write_text(stage.read_text() + "\n# A comment.\n")
    for flags in ([], ["--config-dir", "conf"]):
        assert "the source of word_counts changed" in call(project, "-m", "bloomline", "plan", *flags).stdout
    below = project / "data"
    below.mkdir()
    assert "word_counts" in call(below, "-m", "bloomline", "pipelines").stdout
    assert "count_words" in call(below, "-m", "bloomline", "stages").stdout


def test_the_test_of_a_new_project_passes(project: Path) -> None:
    done = call(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_directory_that_is_not_empty_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "mine.txt").write_text("mine")
    assert cli.run(["new", "words"]) == 1
    assert "words is not empty; expected an empty directory" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "words").iterdir()] == ["mine.txt"]
    assert cli.run(["new"]) == 1
    assert "expected one word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("directory", "package"), [("My-Words 2", "my_words_2"), ("2nd", "project_2nd"), ("…", "project")]
)
def test_the_package_has_a_name_that_python_accepts(directory: str, package: str) -> None:
    assert package_name(directory) == package


@pytest.mark.parametrize(
    ("directory", "reason"),
    [(name, "there is a module of that name") for name in ("json", "stages", "tests")]
    + [("class", "that is a keyword of Python")],
)
def test_a_name_that_is_taken_is_refused(directory: str, reason: str) -> None:
    with pytest.raises(BloomlineError, match=f"{reason}. Choose another name"):
        package_name(directory)
