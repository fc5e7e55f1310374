"""The Python API for notebooks, on the demo stages, in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bloomline
from bloomline import BloomlineError, ConfigError, RunFailedError
from tests.pipelines import demo

pytestmark = pytest.mark.usefixtures("demo_stages")

REPOSITORY = Path(__file__).parents[2]
SMALL = ["hydra.searchpath=[file://conf]", "pipeline=small", "cluster=inline", "store.root=store"]
PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
  b: {stage: join, texts: [a]}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE)


def test_errors_are_imported_from_the_public_module_wherever_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise RuntimeError('a package of the user')")
    names = "BloomlineError, ConfigError, RunFailedError"
    code = (
        f"from bloomline import {names}; assert issubclass(ConfigError, BloomlineError); import bloomline;"
        "assert all(hasattr(bloomline, name) for name in bloomline.__all__) and not hasattr(bloomline, 'Nothing')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_compose_checks() -> None:
    assert list(bloomline.compose(SMALL).graph.steps) == ["a", "b"]
    with pytest.raises(ConfigError, match=r"Did you mean 'text'\?"):
        bloomline.compose([*SMALL, "steps.a.txet=x"])


def test_a_run_its_artifacts_and_what_is_remembered() -> None:
    made = bloomline.run([*SMALL, "steps.b.separator=+", "steps.a.times=2"])
    assert (made.name, made.state) == ("small · separator=+ times=2", "done")
    assert made.metrics("b") == {"length": 10.0}
    assert made.headlines == {"b.length": 10.0}
    text = made.load("a")
    assert isinstance(text, demo.Text)
    assert text.text == "hellohello"
    again = bloomline.run([*SMALL, "steps.b.separator=+", "steps.a.times=2"])
    assert {step.state for step in again.steps.values()} == {"cached"}
    assert again.parameters == made.parameters
    (remembered,) = bloomline.runs(overrides=SMALL)
    assert remembered.id == made.id
    assert bloomline.runs(pipeline="other", overrides=SMALL) == []
    latest = bloomline.load("a", overrides=SMALL)
    assert isinstance(latest, demo.Text)
    assert latest.path == text.path


def test_what_fails_or_is_not_there_is_said() -> None:
    with pytest.raises(RunFailedError, match="b: the text is not to be joined") as failed:
        bloomline.run([*SMALL, "steps.b.fail=stage"])
    assert failed.value.run is not None
    assert failed.value.run.state == "failed"
    with pytest.raises(RunFailedError, match=r"b: blocked: .*8 GPUs") as blocked:
        bloomline.run([*SMALL, "steps.b.gpus=8"])
    assert blocked.value.run is None
    with pytest.raises(BloomlineError, match="no artifact of step b of pipeline small"):
        bloomline.load("b", overrides=SMALL)
    with pytest.raises(BloomlineError, match=r"has no step 'c'\. It has a, b"):
        bloomline.load("c", overrides=SMALL)
