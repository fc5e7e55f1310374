"""The shipped pipelines compose, and the debug size runs from a pair to served entities and an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines import config
from stages.base import StageError
from stages.entity_alignment.align import AlignEntities
from stages.entity_alignment.evaluate import EvaluateEntityAlignment
from stages.entity_alignment.http import create
from stages.entity_alignment.make_pair import MakeGraphPair
from tests.stages.entity_alignment.graph_files import simulated
from tests.support import run_stage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_files_replace_the_pair_of_the_default() -> None:
    steps = config.compose([
        "pipeline=entity_alignment", "steps.graphs.left.path=a.tsv", "steps.graphs.right.path=b.nt",
        "steps.graphs.seeds.path=links.tsv", "steps.align.fusion=early", "steps.graphs.train_share=0.05",
    ]).graph.steps  # fmt: skip
    graphs, align = steps["graphs"].stage, steps["align"].stage
    assert isinstance(graphs, MakeGraphPair)
    assert isinstance(align, AlignEntities)
    assert graphs.left is not None
    assert graphs.made is None
    assert align.fusion == "early"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("debug")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        steps = config.compose(["pipeline=entity_alignment_debug"]).graph.steps
    found: dict[str, Any] = {}
    for name in ("graphs", "align", "evaluate"):
        found[name], found[f"{name} context"] = run_stage(steps[name].stage, found, folder / name, draw=False)
    return found


def test_the_debug_pipeline_runs_and_serves(made: dict[str, Any]) -> None:
    client = TestClient(create(made["align"].application().arguments))
    for example in made["align"].examples():  # what the deploy stage asks
        assert client.request(example.method, example.path, json=example.body).status_code == example.status
    assert made["evaluate"].describe()["queries"] == 72


def test_the_evaluation_of_the_debug_pipeline(made: dict[str, Any]) -> None:
    results = made["evaluate"].results
    assert results.forward.hits_at_1 > 0.5, "more than fifty times chance"
    assert results.forward.hits_at_1 <= results.forward.hits_at_10 <= results.forward.hits_at_50
    low, high = results.forward.interval
    assert low < results.forward.hits_at_1 < high
    assert [share for share, _ in results.robustness["image"]] == [0.0, 0.15, 0.3, 0.45, 0.6]
    assert results.robustness["image"][0][1] == results.forward.hits_at_1, "no noise is what was evaluated"
    assert set(results.corrupted_weights) == {"image"}
    context = made["evaluate context"]
    assert context.figures == ["hits", "weights", "robustness"]
    assert context.last["hits_at_1"] == results.forward.hits_at_1
    page = (made["evaluate"].path / "pages" / "mistakes.html").read_text()
    assert all(mistake.entity in page for mistake in results.mistakes)


def test_modalities_that_cannot_be_made_noise(made: dict[str, Any], tmp_path: Path) -> None:
    stage = EvaluateEntityAlignment.model_validate(
        {"graphs": "graphs", "alignment": "align", "robustness": ["graph", "name"]}
    )
    with pytest.raises(StageError, match="robustness: graph, name can't be made noise; expected some of image"):
        run_stage(stage, made, tmp_path, draw=False)


def test_an_alignment_of_another_pair(made: dict[str, Any], tmp_path: Path) -> None:
    stage = EvaluateEntityAlignment.model_validate({"graphs": "graphs", "alignment": "align"})
    with pytest.raises(StageError, match="it is of another pair than graphs"):
        run_stage(stage, {**made, "graphs": simulated(tmp_path / "other")}, tmp_path / "run", draw=False)
