"""A client for one MLflow: its experiments, runs and models, and the schema of a local database.

Importing mlflow takes seconds, so only the sending thread does, here and in `mlflow_store`.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.process_identity import is_gone
from pipelines.store.digests import create_database_file
from pipelines.tracking import database
from pipelines.tracking.operations import milliseconds
from pipelines.tracking.tracking_config import TrackingConfig

STALE_HEARTBEAT_S = 3600.0  # a driver on another machine without a heartbeat for this time is considered dead
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
KIND = "custom_model_development"  # of our experiments: has MLflow's pages show training, not prompts
REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


class RefusedError(Exception):
    """MLflow understood the operation and rejected it permanently."""


class DeletedExperimentError(Exception):
    """The experiment was deleted while a run wrote to it. It may be restored."""

    def __init__(self, experiment: str) -> None:
        super().__init__(f"the experiment {experiment} was deleted")
        self.experiment = experiment  # id


def prepare_environment(config: TrackingConfig) -> None:
    """What MLflow's client reads from the environment only. What the user has set stays. Before the import."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(config.request_timeout_s))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the spool retries
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would tear the live display
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class Connection:
    """A client for one MLflow, its schema in place."""

    def __init__(self, config: TrackingConfig, root: Path) -> None:
        prepare_environment(config)
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow", "alembic"):  # importing mlflow sets these levels, so after it
            logging.getLogger(noisy).setLevel(logging.ERROR)
        # It prints what it raises (a full disk, a database that is locked), traceback and all; the sender tells it.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self.config = config
        self.root = root
        uri = config.tracking_uri(root)
        if config.kind == "local":
            root.mkdir(parents=True, exist_ok=True)
            # Two drivers that create the schema at once would trip over each other's tables.
            with FileLock(root / "mlflow.db.lock"):
                if was_there := database.begin(root / "mlflow.db"):
                    _migrate(root / "mlflow.db")
                    database.relocate(root / "mlflow.db")
                create_database_file(root / "mlflow.db")
                self.client = MlflowClient(uri, uri)
                self.client.search_experiments(max_results=1)
                self.client.search_registered_models(max_results=1)
                if not was_there:
                    database.keep(root / "mlflow.db")
        else:
            self.client = MlflowClient(uri, uri)
            self.client.search_experiments(max_results=1)

    def answers(self) -> bool:
        """Whether MLflow responds now."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def experiment(self, name: str, description: str = "") -> str:
        """The id of an experiment, created if necessary. A deleted one is restored. A person's description stays."""
        with refusals():
            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    location = self.config.artifact_location(self.root, name)
                    tags = {"mlflow.experimentKind": KIND, NOTE: description}
                    return str(self.client.create_experiment(name, location, tags))
                except Exception:
                    found = self.client.get_experiment_by_name(name)  # another driver was first
                    if found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            if description and not found.tags.get(NOTE):
                with of_others():
                    self.client.set_experiment_tag(found.experiment_id, NOTE, description)
            return str(found.experiment_id)

    def expect_experiment(self, experiment: str) -> None:
        """Raise DeletedExperimentError if the experiment of this id was deleted."""
        with suppress(RefusedError), refusals():
            if self.client.get_experiment(experiment).lifecycle_stage == "deleted":
                raise DeletedExperimentError(experiment)

    def find_runs(self, **wanted: str) -> list[Any]:
        """Runs, in any experiment, whose tags `bloomline.NAME` have these values."""
        conditions = " AND ".join(f"tags.`bloomline.{name}` = {quoted(value)}" for name, value in wanted.items())
        return list(self.client.search_runs(self._experiments(), conditions, max_results=1000))

    def find_model(self, fingerprint: str) -> Any | None:
        """The LoggedModel of a fingerprint."""
        condition = f"tags.`bloomline.fingerprint` = {quoted(fingerprint)}"
        found = self.client.search_logged_models(self._experiments(), condition, max_results=1)
        return found[0] if found else None

    def find_version(self, name: str, fingerprint: str) -> Any | None:
        """The version of a registered model that has this fingerprint."""
        versions = self.client.search_model_versions(f"name = {quoted(name)}")
        return next((found for found in versions if found.tags.get("bloomline.fingerprint") == fingerprint), None)

    def close_abandoned(self) -> int:
        """End the runs of ours that are still RUNNING and whose driver is gone; how many pipeline runs that were."""
        closed = 0
        condition = "attributes.status = 'RUNNING' AND tags.`bloomline.driver` LIKE '%'"
        for run in self.client.search_runs(self._experiments(), condition, max_results=1000):
            try:
                driver = json.loads(run.data.tags["bloomline.driver"])
            except ValueError:
                driver = {}
            heartbeat = float(run.data.tags.get("bloomline.heartbeat", run.info.start_time / 1000))
            if not is_gone(driver) and time.time() - heartbeat < STALE_HEARTBEAT_S:
                continue
            with of_others():
                self._close_run(run, milliseconds(heartbeat))
                closed += 1
        return closed

    def _close_run(self, run: Any, at: int) -> None:
        for child in self.children(run.info.run_id, run.info.experiment_id):
            if child.info.status == "RUNNING":
                self.client.set_terminated(child.info.run_id, "FAILED", at)
        self.client.set_tag(run.info.run_id, "bloomline.state", "abandoned: its driver is gone")
        self.client.set_terminated(run.info.run_id, "FAILED", at)
        self.client.delete_tag(run.info.run_id, "bloomline.driver")

    def children(self, parent: str, experiment: str) -> list[Any]:
        condition = f"tags.`mlflow.parentRunId` = {quoted(parent)}"
        return list(self.client.search_runs([experiment], condition, max_results=1000))

    def _experiments(self) -> list[str]:
        return [experiment.experiment_id for experiment in self.client.search_experiments()]


def _migrate(path: Path) -> None:
    """Bring the schema of a database that an older MLflow made up to date, and keep a copy of what it was.

    A copy is migrated, because a migration that fails leaves a database between two schemas. Raises DatabaseError.
    """
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config, _upgrade_db
    from mlflow.version import VERSION
    from sqlalchemy import create_engine

    found = database.revision(path)
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))  # type: ignore[no-untyped-call]
    expected = scripts.get_current_head()
    if found in (None, expected):
        return
    if found not in {script.revision for script in scripts.walk_revisions()}:
        raise database.DatabaseError(
            f"{path} has the schema {found}, which MLflow {VERSION} does not know: a newer MLflow made it. Install "
            "that version (pip install -U mlflow), or move the database away, and the next run creates a new one"
        )
    backup = path.with_name(f"{path.name}.{found}.backup")
    part = path.with_name(f".{path.name}.migrated")
    try:
        database.copy(path, part)
        engine = create_engine(database.address(part))
        try:
            _upgrade_db(engine)  # type: ignore[no-untyped-call]
        finally:
            engine.dispose()
        database.copy(path, backup)
        database.copy(part, path)
    except Exception as error:
        command = shlex.join(["mlflow", "db", "upgrade", database.address(path)])
        raise database.DatabaseError(
            f"{path} has the schema {found}, and MLflow {VERSION} could not migrate it to {expected} ("
            f"{str(error).splitlines()[0]}). It is unchanged. Move it away, and the next run creates a new one, or "
            f"back it up and try by hand: {command}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn MLflow's final answers into RefusedError; let everything that may pass (no server, 5xx, locked) through."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        # Only an answer that is MLflow's own is final: a proxy's 404 page is a server that is not there.
        foreign = not isinstance(error, RestException) and str(error).startswith("API request")
        if error.error_code in REFUSALS and not foreign:
            raise RefusedError(str(error).splitlines()[0]) from error
        raise


def denied(error: Exception) -> bool:
    """Whether MLflow knows who we are, and does not permit what we asked for."""
    return getattr(error, "error_code", None) == "PERMISSION_DENIED"


@contextmanager
def of_others() -> Iterator[None]:
    """Leave as it is what belongs to another user."""
    try:
        yield
    except Exception as error:
        if not denied(error):
            raise


def quoted(value: str) -> str:
    """A text in a condition of a search."""
    return "'" + value.replace("'", "").replace("\\", "") + "'"
