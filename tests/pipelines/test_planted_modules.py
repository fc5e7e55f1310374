"""The command next to foreign data: files that are named as libraries are not imported."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from cluster.network import wait_until_answers
from tests.cluster.support import address
from tests.pipelines.test_users_directory import PIPELINE, SERVED, script
from tests.planted import imported, plant

__all__ = ["script"]
# What Python itself imports for `python -m`, before any code of ours: only -P keeps these from the working directory.
BEFORE_US = (
    *("_distutils_hack", "collections", "contextlib", "encodings", "functools", "importlib", "keyword", "operator"),
    *("pkgutil", "reprlib", "runpy", "types", "warnings"),
)
STAGE = (
    SERVED.replace(
        '        (ctx.out / "page.txt").write_text(self.text)\n',
        """\
        (ctx.out / "page.txt").write_text(self.text)
        assert ctx.gang(safe, ranks=1) == [True]
        assert list(ctx.map(both, [0], workers=2)) == [(0, True)]
""",
    )
    .replace(
        "    async def app(scope, receive, send):\n",
        """\
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
""",
    )
    .replace(
        "class Greet(Stage):",
        """\
def safe(rank):
    import csv, mlflow, numpy, tempfile, uvicorn
    from my_words import neighbour

    return neighbour.VALUE == 1


def both(_):
    return safe(None)


class Greet(Stage):""",
    )
)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


@pytest.fixture
def project(tmp_path: Path, marks: Path, empty_database: Path) -> Path:
    """A project with its own stage, in a directory that is full of foreign modules."""
    directory = tmp_path / "project"
    for folder in ("conf/pipeline", "my_words", ".bloomline"):
        (directory / folder).mkdir(parents=True)
    (directory / "conf" / "pipeline" / "greeting.yaml").write_text(PIPELINE)
    (directory / "my_words" / "__init__.py").write_text("")
    (directory / "my_words" / "neighbour.py").write_text("VALUE = 1")
    (directory / "my_words" / "greet.py").write_text(STAGE)
    shutil.copy(empty_database, directory / ".bloomline" / "mlflow.db")
    plant(directory, marks)
    return directory


def command(how: list[str], project: Path, verb: str, *overrides: str) -> list[str]:
    return [sys.executable, *how, verb, f"--config-dir={project / 'conf'}", "pipeline=greeting", *overrides]


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "", "XDG_CACHE_HOME": str(project.parent / "cache")}


def test_planting_leaves_setuptools_as_it_was(tmp_path: Path) -> None:
    """Asked where pip is, setuptools' finder switches its distutils off; then torch cannot compile in this process."""
    code = (
        "import sys, pathlib, tests.planted; directory = pathlib.Path(sys.argv[1]); "
        "tests.planted.plant(directory, directory / 'marks'); "
        "import setuptools, distutils.core; print(distutils.core.__file__)"
    )
    line = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "setuptools" in done.stdout


@pytest.mark.parametrize(
    ("how", "verb"),
    [
        *(("script", verb) for verb in ("plan", "run", "submit", "attach", "stages")),
        ("-P -m bloomline", "plan"),
        ("-m bloomline", "run"),
    ],
)
def test_no_planted_module_is_imported(project: Path, script: Path, marks: Path, how: str, verb: str) -> None:
    if how == "-m bloomline":
        for name in BEFORE_US:
            (project / f"{name}.py").unlink(missing_ok=True)
    words = [str(script)] if how == "script" else how.split()
    remote = ["cluster=remote", "cluster.address=http://127.0.0.1:9"]
    overrides = remote if verb in ("submit", "attach") else ["cluster=inline"]
    if verb == "stages":
        line = [sys.executable, *words, verb]
    else:
        line = command(words, project, verb, *overrides, *(["bloomline-job"] if verb == "attach" else []))
    done = subprocess.run(line, cwd=project, env=environment(project), capture_output=True, text=True, timeout=200)
    assert imported(marks) == set()
    if verb in ("submit", "attach"):
        assert "Nothing answers at cluster.address" in done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_no_process_of_a_run_on_ray_or_of_its_server_imports_one(project: Path, script: Path, marks: Path) -> None:
    """The step, its gang, its map, the replicas of both applications, and Ray's own processes."""
    line = command([str(script)], project, "serve", "cluster.cpus=4")
    server = subprocess.Popen(line, cwd=project, env=environment(project), stdout=subprocess.PIPE, text=True)
    assert server.stdout
    output: list[str] = []
    with server:
        try:
            url = address(output.append(text) or text for text in server.stdout)  # type: ignore[func-returns-value]
            assert urlopen(url, timeout=60).read() == b"hi"
        finally:
            server.send_signal(signal.SIGINT)
    assert imported(marks) == set(), "".join(output)
    assert server.returncode == 0


@pytest.mark.slow
def test_the_web_server_of_mlflow_imports_none(project: Path, script: Path, marks: Path) -> None:
    line = [sys.executable, str(script), "ui"]
    server = subprocess.Popen(line, cwd=project, env=environment(project), stdout=subprocess.PIPE, text=True)
    assert server.stdout
    with server:
        try:
            url = address(line for line in server.stdout if line.startswith("MLflow: "))
            assert wait_until_answers(url, lambda: server.poll() is None, 200)
            assert imported(marks) == set()
        finally:
            server.send_signal(signal.SIGINT)
    assert imported(marks) == set()
