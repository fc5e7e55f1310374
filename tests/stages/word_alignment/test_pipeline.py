"""The shipped pipeline composes, and its debug size runs from text to served words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines import config
from stages.word_alignment.http import create
from stages.word_alignment.word_vectors import MakeWordVectors
from tests.support import run_stage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_path_replaces_the_text_of_the_default() -> None:
    graph = config.compose([
        "pipeline=word_alignment", "steps.source.path=wiki.en.vec", "steps.evaluate.dictionary.path=en-es.txt",
        "steps.align.sampler=random", "steps.align.centroids=200",
    ]).graph  # fmt: skip
    source, target = graph.steps["source"].stage, graph.steps["target"].stage
    assert isinstance(source, MakeWordVectors)
    assert isinstance(target, MakeWordVectors)
    assert source.path is not None
    assert source.text is None
    assert target.text is not None
    assert target.text.substitute


@pytest.mark.slow
def test_the_debug_pipeline_runs_and_serves(tmp_path: Path) -> None:
    steps = config.compose(["pipeline=word_alignment_debug"]).graph.steps
    made: dict[str, Any] = {}
    for name in ("source", "target", "align", "evaluate"):
        step = steps[name]
        made[name], _ = run_stage(step.stage, made, tmp_path / name, draw=False)
    assert made["evaluate"].results.after.queries > 50
    client = TestClient(create(made["align"].application().arguments))
    for example in made["align"].examples():  # what the deploy stage asks
        assert client.request(example.method, example.path, json=example.body).status_code == example.status
