"""Trouble with MLflow is said in words for people: what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from pipelines.tracking.mlflow_connection import DeletedExperimentError
from pipelines.tracking.mlflow_trouble import in_words
from pipelines.tracking.tracking_config import TrackingConfig

SERVER = TrackingConfig(kind="server", uri="http://tracking:5000")


def of_sqlite(code: int) -> Exception:
    """An error of the database as MLflow passes it on."""
    from mlflow.exceptions import MlflowException

    cause = sqlite3.OperationalError("whatever it says")
    cause.sqlite_errorcode = code
    error = MlflowException("(sqlite3.OperationalError) whatever it says")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "its disk is full"),
        (sqlite3.SQLITE_IOERR, "whatever it says"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "another process has locked it"),
        (sqlite3.SQLITE_CORRUPT, "is damaged. Move it away"),
    ],
)
def test_of_a_local_database(tmp_path: Path, code: int, words: str) -> None:
    said = in_words(of_sqlite(code), TrackingConfig(), tmp_path)
    assert str(tmp_path / "mlflow.db") in said
    assert words in said


@pytest.mark.parametrize(
    ("code", "experiment", "words"),
    [
        ("UNAUTHENTICATED", "books", "refused the credentials: set MLFLOW_TRACKING_TOKEN"),
        ("PERMISSION_DENIED", None, "refused the credentials"),
        ("PERMISSION_DENIED", "books", "does not permit this user to write to the experiment 'books'"),
        ("TEMPORARILY_UNAVAILABLE", "books", "answered with an error: TEMPORARILY_UNAVAILABLE: later"),
    ],
)
def test_of_a_server(tmp_path: Path, code: str, experiment: str | None, words: str) -> None:
    from mlflow.exceptions import RestException

    error = RestException({"error_code": code, "message": "later"})  # type: ignore[no-untyped-call]
    said = in_words(error, SERVER, tmp_path, experiment)
    assert said.startswith("MLflow at http://tracking:5000 ")
    assert words in said


def test_of_a_full_disk_and_a_deleted_experiment(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/spool/sent.json")
    assert in_words(full, SERVER, tmp_path) == "The disk with /data/spool/sent.json is full. Free some space there"
    deleted = in_words(DeletedExperimentError("7"), SERVER, tmp_path, "books")
    assert "the experiment 'books' was deleted during the run" in deleted
    assert deleted.endswith("mlflow experiments restore --experiment-id 7")
