"""The shipped pipelines: how and where they run does not change their fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines import config, plan
from pipelines.store import Store, StoreConfig


def fingerprints(tmp_path: Path, overrides: Sequence[str]) -> dict[str, str]:
    composition = config.compose(["pipeline=quickstart", *overrides])
    store = Store(StoreConfig(root=str(tmp_path)))
    made = plan.make(composition.graph, store, set(composition.graph.steps))
    return {name: step.fingerprint for name, step in made.steps.items()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["store.root=elsewhere"],
        ["cluster=inline"],
        ["cluster=remote", "cluster.address=head:6379"],
        ["tracking=server", "tracking.uri=http://localhost:5000"],
        ["steps.pretrain.ranks=1", "steps.moe.ranks=4"],
        ["steps.pretrain.zero_stage=3", "steps.pretrain.checkpoint_every_s=1"],
        ["steps.moe.retries=3", "+steps.corpus.resources.cpus=2"],
    ],
)
def test_where_and_how_a_pipeline_runs_is_not_part_of_its_identity(tmp_path: Path, overrides: list[str]) -> None:
    assert fingerprints(tmp_path, overrides) == fingerprints(tmp_path, [])


def test_settings_that_change_the_result_are_part_of_the_identity(tmp_path: Path) -> None:
    before = fingerprints(tmp_path, [])
    after = fingerprints(tmp_path, ["steps.pretrain.learning_rate=1e-3"])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"pretrain", "moe", "quantize", "evaluate", "deploy"}
