"""The engine's benchmark, for bloomline alone and small: what it asks is answered, and its damages are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engine import six_steps, thousand_steps
from benchmarks.engine_peers import Bloomline


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("own_ray")
def test_one_parameter_reruns_what_depends_on_it_and_damage_is_not_handed_on(tmp_path: Path) -> None:
    row = six_steps([Bloomline(tmp_path)], rounds=1, damages=["one byte, old time"])["bloomline"]
    assert "no-op ran" not in row
    assert row["d changed ran"] == "def"
    assert row["one byte, old time"] == "right"
    assert float(row["cold s"] or 0) > 0 < float(row["cold, processor s"] or 0)


def test_a_generated_pipeline(tmp_path: Path) -> None:
    row = thousand_steps(tmp_path, 12, rounds=1)
    assert row["steps"] == 12
    assert {"plan of all", "run of all", "plan", "no-op", "no-op after an edit"} <= row.keys()
    assert min(row.values()) > 0
    assert len(list((tmp_path / "store" / "records").iterdir())) == 12
