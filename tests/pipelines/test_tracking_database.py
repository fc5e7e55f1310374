"""A store's MLflow database begins as a copy of one that MLflow made, and a bad copy is never taken."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipelines import cache_directory
from pipelines.tracking import database
from pipelines.tracking.tracking_config import TrackingConfig


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as found:
        return sorted(found.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_the_second_store_begins_with_a_copy_and_works_like_the_first(tmp_path: Path) -> None:
    from pipelines.tracking.mlflow_store import Connection

    config = TrackingConfig(kind="local")
    first = Connection(config, tmp_path / "first")
    [template] = cache_directory.path().glob("mlflow-*.db")
    made = template.stat().st_mtime_ns
    with sqlite3.connect(template) as empty:
        assert empty.execute("SELECT count(*) FROM experiments").fetchone() == (0,)
    second = Connection(config, tmp_path / "second")
    assert template.stat().st_mtime_ns == made
    assert schema(tmp_path / "first" / "mlflow.db") == schema(tmp_path / "second" / "mlflow.db")
    for connection in (first, second):
        run = connection.client.create_run(connection.experiment("demo"))
        connection.client.log_metric(run.info.run_id, "loss", 1.5)
        assert connection.client.get_run(run.info.run_id).data.metrics == {"loss": 1.5}
    names = [experiment.name for experiment in second.client.search_experiments()]
    assert sorted(names) == ["Default", "demo"]


def test_a_damaged_template_is_thrown_away(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "made.db") as made:
        made.execute("CREATE TABLE experiments (name TEXT)")
    database.keep(tmp_path / "made.db")
    [template] = cache_directory.path().glob("mlflow-*.db")
    template.write_bytes(b"not a database" * 1000)
    assert not database.begin(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    assert not template.exists()


def test_an_existing_database_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert not database.begin(path)
    path.write_bytes(b"somebody's")
    assert database.begin(path)
    assert path.read_bytes() == b"somebody's"


def test_a_home_that_cannot_be_written_to_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    with sqlite3.connect(tmp_path / "made.db") as made:
        made.execute("CREATE TABLE experiments (name TEXT)")
    database.keep(tmp_path / "made.db")
    assert not database.begin(tmp_path / "new.db")
