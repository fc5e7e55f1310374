"""Fixtures of the engine's tests: the demo stages in place of the real ones, and a store in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import graph
from pipelines.store import Store, StoreConfig
from tests.pipelines import demo


@pytest.fixture
def demo_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry holds the demo stages only."""
    import stages.registry

    monkeypatch.setattr(stages.registry, "STAGES", demo.STAGES)
    monkeypatch.setattr(graph, "STAGES", demo.STAGES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig(root=str(tmp_path / "store")))
