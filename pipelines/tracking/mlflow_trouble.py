"""Why MLflow can't be used now, and what to do about it, in one sentence for people."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cluster.extras import missing_extra
from pipelines.tracking.database import DatabaseError
from pipelines.tracking.mlflow_connection import Connection, DeletedExperimentError, denied, prepare_environment
from pipelines.tracking.tracking_config import TrackingConfig

CREDENTIALS_REFUSED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
OF_DATABASE = {
    sqlite3.SQLITE_FULL: "its disk is full. Free some space there",
    sqlite3.SQLITE_BUSY: "another process has locked it. See which one uses it",
    sqlite3.SQLITE_READONLY: "it is read-only. Make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened. Check the permissions of the file and its directory",
    sqlite3.SQLITE_CORRUPT: "the file is damaged. Move it away, and the next run creates a new one",
    sqlite3.SQLITE_NOTADB: "the file is not a database. Move it away, and the next run creates a new one",
}


def server_trouble(config: TrackingConfig, root: Path) -> str | None:
    """Ask MLflow whether it can be used: what is wrong and what to do, in one line; None if it answers."""
    prepare_environment(config)
    from mlflow.exceptions import MlflowException

    try:
        Connection(config, root)
    except MlflowException as error:
        return in_words(error, config, root)
    return None


def in_words(error: Exception, config: TrackingConfig, root: Path, experiment: str | None = None) -> str:
    """What an error of the tracking means: what is wrong, where, and what to do, without a full stop at its end.

    `experiment`: the one that was written to, if that is known.
    """
    if isinstance(error, DatabaseError):
        return str(error)
    if isinstance(error, ImportError):
        return missing_extra(error) or first_line(error)
    where = config.shown(root)
    if isinstance(error, DeletedExperimentError):
        restore = f"mlflow experiments restore --experiment-id {error.experiment}"
        return f"MLflow at {where}: the experiment {experiment!r} was deleted during the run. To continue it: {restore}"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return f"The disk with {cause.filename or root} is full. Free some space there"
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the lowest byte has the kind of an extended code
        if code in OF_DATABASE and isinstance(cause, sqlite3.Error):
            return f"MLflow at {where}: {OF_DATABASE[code]}"
    return _of_server(error, where, config, experiment)


def _of_server(error: Exception, where: str, config: TrackingConfig, experiment: str | None) -> str:
    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException

    if not isinstance(error, MlflowException):
        return f"MLflow at {where} failed: {first_line(error)}"
    if error.error_code in CREDENTIALS_REFUSED or (denied(error) and not experiment):
        return (
            f"MLflow at {where} refused the credentials: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, to ones that may read its experiments"
        )
    if denied(error):
        return (
            f"MLflow at {where} does not permit this user to write to the experiment {experiment!r}: "
            "ask its owner for the permission EDIT, or choose another experiment with tracking.experiment=NAME"
        )
    if any(isinstance(cause, RequestException) for cause in _causes(error)):
        return (
            f"no server answers at {where} within {config.request_timeout_s} s: check tracking.uri, the network, and "
            "whether the server runs"
        )
    if config.kind == "server" and not experiment and not isinstance(error, RestException):
        return f"what answers at {where} is not MLflow: check the host, port and path of tracking.uri"
    return f"MLflow at {where} answered with an error: {str(error).splitlines()[0][:300]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it. SQLAlchemy keeps the database's own error as `orig`."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = getattr(following, "orig", None) or following.__cause__ or following.__context__


def first_line(error: Exception) -> str:
    """The first line of an error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    # SQLAlchemy says in parentheses where it was before it says what happened.
    text = next((line for line in lines if line and not line.startswith("(raised as a result of ")), "")
    return f"{type(error).__name__}: {text}"[:300]
