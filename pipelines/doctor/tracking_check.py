"""Checks the tracking: whether MLflow answers, in which version, and whether runs may be made there."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pipelines.doctor.finding import Finding, first_line
from pipelines.tracking.tracking_config import TrackingConfig

LONGEST_ANSWER = 1 << 16
REFUSED = (401, 403)
CREDENTIALS = (
    "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, of a user who may write "
    "to the experiment."
)


def check_tracking(config: TrackingConfig, root: Path, experiment: str) -> Iterator[Finding]:
    """The tracking of a configuration. `root`: the directory of a local database. `experiment`: in which runs are made.

    A run that it makes on a server is deleted again. If the experiment is not there, the run is made in another one,
    which is deleted too: who restores a deleted experiment restores its runs. In a local database it makes none.
    """
    if find_spec("mlflow") is None:
        remedy = "pip install 'bloomline[tracking]'; until then, runs are kept in the store and sent later."
        yield Finding("warning", "tracking: mlflow is not installed", remedy)
        return
    if config.uri is None:
        there = "" if (root / "mlflow.db").exists() else ", which the first run makes"
        yield Finding("ok", f"tracking: MLflow {version('mlflow')}, database {config.shown(root)}{there}")
        if there:
            return
    else:
        found = _server_version(config)
        yield found
        if found.state == "failed":
            return
    yield _usable(config, root, experiment)


def _server_version(config: TrackingConfig) -> Finding:
    """Whether an MLflow answers at the address."""
    name = f"tracking server {config.shown(Path())}"
    remedy = "Check tracking.uri, and that the server runs: mlflow server --host HOST --port PORT"
    try:
        with urllib.request.urlopen(
            f"{str(config.uri).rstrip('/')}/version", timeout=config.request_timeout_s
        ) as answer:
            said = answer.read(LONGEST_ANSWER).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        if error.code in REFUSED:
            return Finding("ok", f"{name} answers, and asks who we are")
        return Finding("failed", f"{name} answers with status {error.code}, not as MLflow", remedy)
    except Exception as error:  # whatever it is that answers there
        return Finding("failed", f"{name}: {first_line(error)}", remedy)
    if not said[:1].isdigit() or len(said) > 40:
        return Finding("failed", f"{name} does not answer as MLflow does: {said[:40]!r}", remedy)
    ours = version("mlflow")
    if said.split(".")[0] != ours.split(".")[0]:
        return Finding("warning", f"{name}: MLflow {said}, ours is {ours}", "Use the same major version on both sides.")
    return Finding("ok", f"{name}: MLflow {said}")


def _usable(config: TrackingConfig, root: Path, experiment: str) -> Finding:
    """Whether runs may be made in the experiment."""
    from pipelines.tracking.mlflow_connection import Connection

    name = f"experiment {experiment!r}"
    try:
        connection = Connection(config, root)
        if config.uri is None:
            return Finding("ok", f"{name}: its database can be read")
        there = connection.client.get_experiment_by_name(experiment)
        is_there = there is not None and there.lifecycle_stage == "active"
        number = connection.experiment(experiment if is_there else f"bloomline-doctor-{uuid.uuid4().hex[:8]}")
        made = connection.client.create_run(number, tags={"bloomline.doctor": "yes"})
        connection.client.delete_run(made.info.run_id)
        if not is_there:
            connection.client.delete_experiment(number)
            return Finding("ok", f"{name}, which the first run makes: another one could be made, and was deleted again")
    except Exception as error:  # of MLflow, and of what answers in its place
        said = _message(error)
        if any(word in said for word in ("401", "403", "PERMISSION_DENIED", "Permission denied", "not authenticated")):
            return Finding("failed", f"{name}: the server refuses us: {said}", CREDENTIALS)
        return Finding("failed", f"{name}: {said}", "See the server's log, or choose another tracking.experiment.")
    return Finding("ok", f"{name}: a run could be made, and was deleted again")


def _message(error: Exception) -> str:
    """What an error of MLflow's says, which may be the JSON of an answer."""
    try:
        return str(json.loads(str(error))["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return first_line(error)
