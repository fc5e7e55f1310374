"""The command from inside a user's project, whatever names the project's own files have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIPELINE = """\
# @package _global_
# Says hello.
name: greeting
packages: [my_words]
steps:
  hello: {stage: "my_words.greet:Greet", text: hi}
"""
STAGE = '''\
from dataclasses import dataclass
from stages.base import Artifact, Stage


@dataclass(frozen=True)
class Greeting(Artifact):
    """A greeting."""


class Greet(Stage):
    """Greets."""

    text: str

    def run(self, ctx) -> Greeting:
        (ctx.out / "greeting.txt").write_text(self.text)
        return Greeting(ctx.out)
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has every one of our package names, each in a module that fails when it is imported."""
    directory = tmp_path / "project"
    for name in ("conf", "stages", "pipelines"):
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text(f"raise RuntimeError('the project has its own {name}')")
    (directory / "cluster.py").write_text("raise RuntimeError('the project has its own cluster')")
    (directory / "conf" / "pipeline").mkdir()
    (directory / "conf" / "pipeline" / "greeting.yaml").write_text(PIPELINE)
    (directory / "my_words").mkdir()
    (directory / "my_words" / "__init__.py").write_text("")
    (directory / "my_words" / "greet.py").write_text(STAGE)
    return directory


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The console script, as an installer writes it."""
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "bloomline"
    ].partition(":")
    path = tmp_path / "bin" / "bloomline"
    path.parent.mkdir()
    path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return path


def bloomline(
    how: list[str], project: Path, *words: str, python_path: str = "", directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    where = [f"--config-dir={project / 'conf'}", "pipeline=greeting", "cluster=inline"]
    return subprocess.run(
        [sys.executable, *how, *words[:1], *where, *words[1:]],
        cwd=directory or project,
        env={**os.environ, "PYTHONPATH": python_path, "XDG_CACHE_HOME": str(project.parent / "cache")},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("on_path", [False, True])
@pytest.mark.parametrize("module", [False, True])
def test_plan_works_whatever_the_project_holds(project: Path, script: Path, module: bool, on_path: bool) -> None:
    how = ["-m", "bloomline"] if module else [str(script)]
    done = bloomline(how, project, "plan", python_path=str(project) if on_path else "")
    assert done.returncode == 0, done.stderr
    assert "never run" in done.stdout


def test_the_module_of_the_command_line_works_where_it_is_found(project: Path) -> None:
    shutil.rmtree(project / "pipelines")  # with an __init__.py, Python itself would take it for ours
    (project / "pipelines").mkdir()
    done = bloomline(["-m", "pipelines.cli"], project, "plan")
    assert done.returncode == 0, done.stderr
    assert "never run" in done.stdout


def test_a_run_works_whatever_the_project_holds(project: Path, script: Path, empty_database: Path) -> None:
    (project / ".bloomline").mkdir()
    shutil.copy(empty_database, project / ".bloomline" / "mlflow.db")
    done = bloomline([str(script)], project, "run", python_path=str(project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greeting: done" in done.stdout
    assert [path.read_text() for path in (project / ".bloomline" / "artifacts").rglob("greeting.txt")] == ["hi"]


def test_what_was_imported_before_is_refused_with_its_file(project: Path) -> None:
    (project / "cluster.py").write_text("")
    (project / "sitecustomize.py").write_text("import cluster")
    done = bloomline(["-m", "bloomline"], project, "plan", python_path=str(project))
    assert done.returncode == 2
    assert f"can't import its own package 'cluster': {project / 'cluster.py'}" in done.stderr
    assert "Traceback" not in done.stderr


SERVED = '''\
from dataclasses import dataclass
from stages.base import Application, Servable, Stage


@dataclass(frozen=True)
class Page(Servable):
    """A page that is served."""

    def application(self) -> Application:
        return Application("page", "my_words.greet:application", {"text": (self.path / "page.txt").read_text()})


def application(arguments):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": arguments["text"].encode()})

    return app


class Greet(Stage):
    """Makes a page, and asks for it over HTTP."""

    text: str

    def run(self, ctx) -> Page:
        from urllib.request import urlopen

        (ctx.out / "page.txt").write_text(self.text)
        served = ctx.serve(Page(ctx.out).application())
        try:
            ctx.metrics({"bytes": len(urlopen(served.url).read())})
        finally:
            served.stop()
        return Page(ctx.out)
'''


def test_an_application_of_the_project_is_served(project: Path, script: Path, empty_database: Path) -> None:
    (project / "my_words" / "greet.py").write_text(SERVED)
    (project / ".bloomline").mkdir()
    shutil.copy(empty_database, project / ".bloomline" / "mlflow.db")
    done = bloomline([str(script)], project, "run", python_path=str(project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greeting: done" in done.stdout
