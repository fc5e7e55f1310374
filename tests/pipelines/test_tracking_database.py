"""A store's MLflow database: its template, its address, its schema, and where it says that artifacts are."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipelines import cache_directory
from pipelines.tracking import database
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from tests.pipelines import samples


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as found:
        return sorted(found.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_the_second_store_begins_with_a_copy_and_works_like_the_first(tmp_path: Path) -> None:
    from pipelines.tracking.mlflow_connection import Connection

    config = TrackingConfig(kind="local")
    umask = os.umask(0o002)  # of users who share a store through a group
    try:
        first = Connection(config, tmp_path / "first")
    finally:
        os.umask(umask)
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
    assert (tmp_path / "first" / "mlflow.db").stat().st_mode & 0o777 == 0o664
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


LOCAL = TrackingConfig(kind="local")


def track(root: Path, directory: Path, run_id: str) -> tuple[str, ...]:
    """Record a small run, and tell the notes."""
    sample = samples.run(directory, run_id=run_id)
    tracking = Tracking.open(LOCAL, root, run_id)
    samples.replay(tracking, sample)
    return tracking.close()


def new_store(root: Path, empty_database: Path) -> Path:
    root.mkdir(parents=True)
    shutil.copyfile(empty_database, root / "mlflow.db")
    return root


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def read_back(root: Path) -> dict[str, str]:
    """The plan of every run, by the run's name, as MLflow's client finds it."""
    from mlflow import MlflowClient

    client: Any = MlflowClient(LOCAL.tracking_uri(root), LOCAL.tracking_uri(root))
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`bloomline.pipeline` != ''")
    return {run.info.run_name: Path(client.download_artifacts(run.info.run_id, "plan.txt")).read_text() for run in runs}


@pytest.mark.usefixtures("eager_tracking")
def test_a_moved_and_a_copied_store_write_within_themselves(tmp_path: Path, empty_database: Path) -> None:
    old = new_store(tmp_path / "mlartifacts" / "old", empty_database)
    assert track(old, tmp_path, "first") == ()
    moved = old.rename(tmp_path / "new")
    assert track(moved, tmp_path, "second") == ()
    assert not old.exists()
    assert read_back(moved).keys() == {"first", "second"}
    before = files(moved)
    shutil.copytree(moved, tmp_path / "copy")
    assert track(tmp_path / "copy", tmp_path, "third") == ()
    assert files(moved) == before
    shutil.rmtree(moved)
    assert read_back(tmp_path / "copy").keys() == {"first", "second", "third"}
    with sqlite3.connect(tmp_path / "copy" / "mlflow.db") as copied:
        for table, columns in database.LOCATIONS.items():
            for column in columns:
                for (location,) in copied.execute(f"SELECT {column} FROM {table}"):
                    assert "/mlruns/" in location or location.startswith((tmp_path / "copy").as_uri())


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    from pipelines.tracking.mlflow_connection import Connection

    (tmp_path / "mlflow.db").touch()
    assert Connection(LOCAL, tmp_path).experiment("demo")


def test_an_artifact_location_of_the_users_own_stays(tmp_path: Path, empty_database: Path) -> None:
    root = new_store(tmp_path / "store", empty_database)
    with sqlite3.connect(root / "mlflow.db") as made:
        made.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) "
            "VALUES ('a', 's3://b/mlartifacts/a', 'active')"
        )
    database.relocate(root / "mlflow.db")
    with sqlite3.connect(root / "mlflow.db") as made:
        assert ("s3://b/mlartifacts/a",) in made.execute("SELECT artifact_location FROM experiments").fetchall()


@pytest.mark.usefixtures("eager_tracking")
@pytest.mark.parametrize(
    "name", ["que?st", "perc%20ent", "ha#sh", "quo'te \"", "spa ce", "ünï", "per%%c", "a&b=c;d+e@f:g"]
)
def test_any_path_of_a_store_can_be_tracked(tmp_path: Path, empty_database: Path, name: str) -> None:
    root = new_store(tmp_path / "stores" / name, empty_database)
    (tmp_path / "files").mkdir()
    assert track(root, tmp_path / "files", "run") == ()
    assert read_back(root).keys() == {"run"}
    assert [path.name for path in (tmp_path / "stores").iterdir()] == [name]
    assert quote(name) not in {path.name for path in root.iterdir()}


def with_schema(root: Path, revision: str) -> Path:
    """A database as the MLflow of this schema made it, with one run."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    root.mkdir()
    made = root.parent / "made.db"
    engine = create_engine(f"sqlite:///{made}")
    Base.metadata.create_all(engine)
    command.upgrade(_get_alembic_config(str(engine.url)), revision)  # type: ignore[no-untyped-call]
    engine.dispose()
    made.rename(root / "mlflow.db")
    with sqlite3.connect(root / "mlflow.db") as old:
        old.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            "VALUES (7, 'demo', 'file:///gone/mlartifacts/demo', 'active')"
        )
    return root


@pytest.mark.parametrize("name", ["que?st", "spa ce ü'&+%41"])
def test_the_database_of_an_older_mlflow_is_migrated_and_kept(tmp_path: Path, empty_database: Path, name: str) -> None:
    from pipelines.tracking.mlflow_connection import Connection

    root = with_schema(tmp_path / name, "acf3f17fdcc7")
    found = Connection(LOCAL, root)
    assert found.experiment("demo") == "7"
    assert database.revision(root / "mlflow.db") == database.revision(empty_database)
    backup = root / "mlflow.db.acf3f17fdcc7.backup"
    assert database.revision(backup) == "acf3f17fdcc7"
    assert sorted(path.name for path in root.iterdir()) == ["mlflow.db", backup.name, "mlflow.db.lock"]
    run = found.client.create_run("7")
    assert run.info.artifact_uri.startswith((root / "mlartifacts" / "demo").as_uri())


@pytest.mark.usefixtures("eager_tracking")
@pytest.mark.parametrize("revision", ["ffffffffffff", "0a8213491aaa"])
def test_a_schema_that_cannot_be_migrated_is_refused_whole(tmp_path: Path, empty_database: Path, revision: str) -> None:
    """One that no migration leads from, and one that the tables do not have."""
    root = new_store(tmp_path / ("a long name of a directory " * 5), empty_database)
    path = root / "mlflow.db"
    with sqlite3.connect(path) as made:
        made.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    before = path.read_bytes()
    [note] = track(root, tmp_path, "run")
    by_hand = shlex.join(["mlflow", "db", "upgrade", f"sqlite:///{path}"])
    assert f"{path} has the schema {revision}" in note
    assert ("a newer MLflow made it" if revision == "ffffffffffff" else f"try by hand: {by_hand}.") in note
    assert path.read_bytes() == before
