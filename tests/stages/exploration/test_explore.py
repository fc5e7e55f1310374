"""The stages, the shipped pipelines, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines import config
from stages.base import VERDICT, ArtifactError, StageError
from stages.exploration.compare import CompareExplorations
from stages.exploration.explorations import EXPLORATIONS, Explorations
from stages.exploration.explore import CONTEXTUAL_METHODS, EPISODE_METHODS, Explore
from tests.support import run_stage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_debug_pipeline_explores_and_compares(tmp_path: Path) -> None:
    steps = config.compose(["pipeline=active_exploration_debug"]).graph.steps
    made, context = run_stage(steps["explore"].stage, {}, tmp_path / "explore")
    assert isinstance(made, Explorations)
    assert {(one.method, one.policy, one.seed) for one in made.facts.curves} == {
        (method, policy, seed)
        for method in ("ae_lsvi", "random")
        for policy in ("last", "best_round")
        for seed in (0, 1)
    }
    assert context.progressed[-1] == (4, 4)
    _, compared = run_stage(steps["compare"].stage, {"explore": made}, tmp_path / "compare")
    assert compared.figures == ["curves", "gaps"]
    assert "worst return" in compared.highlights[VERDICT]
    assert compared.last["worst"] == compared.last["worst_ae_lsvi"]
    assert "| random | 2 |" in (tmp_path / "compare" / "out" / "pages" / "comparison.md").read_text()


def test_a_function_with_contexts_is_explored_and_the_same_again(tmp_path: Path) -> None:
    stage = Explore(problem="branin", methods=("ae_lsvi", "random"), seeds=1, budget=12, points=2)
    made, context = run_stage(stage, {}, tmp_path / "a")
    again, _ = run_stage(stage, {}, tmp_path / "b")
    assert made.facts == again.facts
    assert made.facts.measure == "regret"
    assert made.facts.curves[0].at == (6, 12)
    assert context.last["seconds_ae_lsvi"] > 0
    assert "seconds" not in (made.path / EXPLORATIONS).read_text()
    compare = CompareExplorations.model_validate({"explorations": "explore", "policy": "best_round"})
    with pytest.raises(StageError, match="no curves of the policy best_round"):
        run_stage(compare, {"explore": made}, tmp_path / "c")
    _, compared = run_stage(compare.model_copy(update={"policy": "last"}), {"explore": made}, tmp_path / "d")
    assert compared.figures == ["curves", "gaps"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"problem": "branin", "methods": ["lsvi_ucb"]}, "'lsvi_ucb' is not for branin"),
        ({"problem": "pendulum", "methods": ["thompson"]}, "'thompson' is not for pendulum"),
        ({"problem": "branin", "methods": ["random", "random"]}, "twice"),
        ({"problem": "maze"}, "Input should be"),
    ],
)
def test_what_cannot_be_explored_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Explore.model_validate(values)


def test_the_methods_that_a_configuration_may_name_are_those_that_exist() -> None:
    from stages.exploration import contextual_methods, episodes

    assert set(CONTEXTUAL_METHODS) == {*contextual_methods.METHODS, contextual_methods.TPE}
    assert set(EPISODE_METHODS) == set(episodes.METHODS)


def test_damaged_explorations_are_refused(tmp_path: Path) -> None:
    (tmp_path / EXPLORATIONS).write_text(json.dumps({"problem": "branin"}))
    with pytest.raises(ArtifactError, match="is not a file of explorations"):
        Explorations(tmp_path).check()
