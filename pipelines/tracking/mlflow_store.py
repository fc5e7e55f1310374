"""Executes operations in MLflow with an explicit client, never the fluent interface.

Every operation looks before it makes something that MLflow would make twice (runs, models, versions), so that one whose
answer was lost can be repeated.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.tracking.descriptions import Description, render
from pipelines.tracking.mlflow_connection import (
    NOTE,
    Connection,
    RefusedError,
    denied,
    of_others,
    quoted,
    refusals,
)
from pipelines.tracking.mlflow_model import write_model
from pipelines.tracking.operations import PARENT
from pipelines.tracking.spool import Operation, Spool

BATCH_POINTS = 800  # MLflow's limits for one request: 1,000 values in all,
BATCH_VALUES = 100  # of which 100 parameters and 100 tags
EXTERNAL = "mlflow.model.isExternal"
SWEEP_TAG = "bloomline.sweep_run"
SWEEPS = threading.Lock()  # held while the run of a sweep is looked for and made


class Writer:
    """Carries out the operations of one spool. `spool.ids` remembers what MLflow called things."""

    def __init__(self, connection: Connection, spool: Spool) -> None:
        self._connection = connection
        self._client = connection.client
        self._spool = spool
        self._runs: dict[str, str] = spool.ids.setdefault("runs", {})
        self._models: dict[str, str] = spool.ids.setdefault("models", {})
        self._steps_of: dict[str, Mapping[str, str]] = {}  # id of a run of a pipeline -> see `_made_by`

    def apply(self, operation: Operation) -> None:
        """Execute one operation. Raises RefusedError, or whatever the client raises when MLflow can't be reached."""
        does: dict[str, Callable[[Operation], None]] = {
            "run": self._run,
            "describe": self._describe,
            "log": self._log,
            "text": self._text,
            "file": self._file,
            "inputs": self._inputs,
            "model": self._model,
            "register": self._register,
            "version": self._version,
            "end": self._end,
            "close": self._close,
        }
        kind = operation.get("op", "")
        if kind not in does:
            raise RefusedError(f"not an operation: {kind!r}")
        with refusals():
            try:
                does[kind](operation)
            except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
                raise RefusedError(f"{type(error).__name__}: {error}") from error

    def heartbeat(self) -> None:
        """Send a heartbeat of the driver."""
        if PARENT not in self._runs:
            return
        with suppress(RefusedError), refusals():  # a run that was deleted needs none
            self._client.set_tag(self._runs[PARENT], "bloomline.heartbeat", str(time.time()))

    # The operations ------------------------------------------------------------------------------------------------

    def _run(self, operation: Operation) -> None:
        key, tags = operation["key"], dict(operation["tags"])
        experiment = self._spool.ids.get("experiment")
        if experiment is None:
            self._spool.ids["experiment_name"] = operation["experiment"]  # for messages
            experiment = self._connection.experiment(operation["experiment"], operation.get("about", ""))
            self._spool.ids["experiment"] = experiment
        if self._spool.doubtful and SWEEP_TAG not in tags:
            own = {"step": key} if key else {"pipeline": tags["bloomline.pipeline"]}
            if found := self._connection.find_runs(run=tags["bloomline.run"], **own):
                self._runs[key] = found[0].info.run_id
                return
        if SWEEP_TAG in tags:
            self._runs[key] = self._sweep(operation, experiment)
            return
        if key:
            tags["mlflow.parentRunId"] = self._runs[PARENT]
        elif operation.get("sweep"):
            tags["mlflow.parentRunId"] = self._sweep(operation["sweep"], experiment)
        run = self._client.create_run(experiment, operation["at"], tags, operation["name"])
        self._runs[key] = run.info.run_id

    def _sweep(self, operation: Operation, experiment: str) -> str:
        """The id of the run of a sweep. The first that needs it makes it: the sweep itself, or one of its jobs."""
        with SWEEPS:
            if found := self._connection.find_runs(sweep_run=operation["tags"][SWEEP_TAG]):
                return str(found[0].info.run_id)
            made = self._client.create_run(experiment, operation["at"], operation["tags"], operation["name"])
            return str(made.info.run_id)

    def _describe(self, operation: Operation) -> None:
        self._client.set_tag(self._id(operation), NOTE, self._rendered(operation["description"]))

    def _rendered(self, description: Description) -> str:
        """The text of a description, with links to the runs of steps as far as this MLflow knows them."""
        experiment = self._spool.ids["experiment"]
        links: dict[str, str] = {}
        for row in description["rows"]:
            if own := self._runs.get(row["step"]):
                links[row["step"]] = _address(experiment, own)
            elif row["made_by"] and (made := self._made_by(row["made_by"]).get(row["fingerprint"])):
                links[row["step"]] = made
        return render(description, links, _address(experiment, self._runs[PARENT]))

    def _made_by(self, run_id: str) -> Mapping[str, str]:
        """The addresses of the runs of the steps that another run of a pipeline made, by fingerprint."""
        if run_id not in self._steps_of:
            self._steps_of[run_id] = {
                run.data.tags["bloomline.fingerprint"]: _address(run.info.experiment_id, run.info.run_id)
                for run in self._connection.find_runs(run=run_id)
                # Earlier releases made runs of cached steps too.
                if "bloomline.fingerprint" in run.data.tags and "bloomline.cached_from" not in run.data.tags
            }
        return self._steps_of[run_id]

    def _log(self, operation: Operation) -> None:
        from mlflow.entities import Metric, Param, RunTag

        model = self._model_id(operation["model"])
        points = [Metric(name, value, at, step, model_id=model) for name, value, at, step in operation["points"]]
        params = [Param(name, value) for name, value in operation["params"].items()]
        tags = [RunTag(name, value) for name, value in operation["tags"].items()]
        requests = max(-(-len(points) // BATCH_POINTS), -(-len(params) // BATCH_VALUES), -(-len(tags) // BATCH_VALUES))
        for number in range(requests):
            self._client.log_batch(
                self._id(operation),
                points[number * BATCH_POINTS : (number + 1) * BATCH_POINTS],
                params[number * BATCH_VALUES : (number + 1) * BATCH_VALUES],
                tags[number * BATCH_VALUES : (number + 1) * BATCH_VALUES],
            )

    def _text(self, operation: Operation) -> None:
        self._client.log_text(self._id(operation), operation["text"], operation["path"])

    def _file(self, operation: Operation) -> None:
        try:
            content = self._spool.read(operation["file"])
        except OSError as error:
            raise RefusedError(f"a file of the spool: {error.strerror}") from error
        with TemporaryDirectory() as directory:
            (copy := Path(directory, Path(operation["file"]).name)).write_bytes(content)
            self._client.log_artifact(self._id(operation), copy, operation["folder"])

    def _inputs(self, operation: Operation) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

        datasets = [
            DatasetInput(
                Dataset(item["name"], item["digest"], item["type"], _source(item["source"]), profile=item["profile"]),
                [InputTag("mlflow.data.context", item["context"])],
            )
            for item in operation["datasets"]
        ]
        run_id = self._id(operation)
        known = self._client.get_run(run_id).inputs
        there = {model.model_id for model in known.model_inputs} if known else set()
        models = {self._model_id(fingerprint) for fingerprint in operation["models"]} - there - {None}
        if datasets or models:
            self._client.log_inputs(
                run_id, datasets, [LoggedModelInput(model) for model in sorted(filter(None, models))]
            )

    def _model(self, operation: Operation) -> None:
        """A LoggedModel whose weights stay in our store: MLflow gets the facts, the address, and what loads it."""
        from mlflow.entities import LoggedModelOutput

        run_id, tags = self._id(operation), operation["tags"]
        model = self._connection.find_model(operation["fingerprint"])
        if model is None:
            model = self._client.create_logged_model(
                self._spool.ids["experiment"],
                name=operation["name"],
                source_run_id=run_id,
                tags=tags,
                params=operation["params"],
                model_type=operation["type"],
            )
        else:
            with of_others():
                self._client.set_logged_model_tags(model.model_id, tags)
        # Those of earlier releases were external: nothing could load them.
        external = EXTERNAL in model.tags and "artifact" in operation
        if str(model.status) != "READY" or external:
            with of_others(), TemporaryDirectory() as directory:  # without these files the registry takes no model
                write_model(Path(directory), model, operation.get("artifact"), operation.get("predictor"))
                self._client.log_model_artifacts(model.model_id, directory)
                if external:
                    self._client.delete_logged_model_tag(model.model_id, EXTERNAL)
                self._client.finalize_logged_model(model.model_id, "READY")
        self._models[operation["fingerprint"]] = model.model_id
        if operation["made"]:
            outputs = self._client.get_run(run_id).outputs
            there = {output.model_id for output in outputs.model_outputs} if outputs else set()
            if model.model_id not in there:
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])

    def _register(self, operation: Operation) -> None:
        """A version of a registered model for a fingerprint, once; the alias moves to it."""
        name, fingerprint = operation["name"], operation["fingerprint"]
        model = self._connection.find_model(fingerprint)
        if model is None:
            raise RefusedError(f"no model of fingerprint {fingerprint} to register as {name}")
        try:
            about = operation.get("about", "")
            if not (known := self._client.search_registered_models(f"name = {quoted(name)}", max_results=1)):
                self._client.create_registered_model(name, description=about)
            elif about and not known[0].description:
                with of_others():
                    self._client.update_registered_model(name, about)
            version = self._connection.find_version(name, fingerprint)
            if version is None:
                # The sqlite store would resolve models:/ID by the process-wide tracking URI, which is not ours to set.
                local = self._connection.config.kind == "local"
                source = model.artifact_location if local else f"models:/{model.model_id}"
                version = self._client.create_model_version(
                    name, source, model.source_run_id, operation["tags"], model_id=model.model_id
                )
                link = json.dumps([{"name": name, "version": version.version}])
                with of_others():
                    self._client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
            if operation["alias"]:
                self._client.set_registered_model_alias(name, operation["alias"], version.version)
        except Exception as error:
            if denied(error):  # the rest of the run must not wait for it
                raise RefusedError(
                    f"the registered model {name} belongs to another user: choose another `registered_name` of the "
                    "deploy step"
                ) from error
            raise

    def _version(self, operation: Operation) -> None:
        """The measures and the lineage of a registered version."""
        name, fingerprint = operation["name"], operation["fingerprint"]
        version = self._connection.find_version(name, fingerprint)
        if version is None:  # it was not registered, and why has been said
            return
        with of_others():
            for tag, value in operation["tags"].items() - version.tags.items():  # MLflow takes them one by one
                self._client.set_model_version_tag(name, version.version, tag, value)
            text = self._rendered(operation["description"]).replace("/VERSION", f"/{version.version}")
            self._client.update_model_version(name, version.version, text)

    def _end(self, operation: Operation) -> None:
        self._client.set_terminated(self._id(operation), operation["status"], operation["at"])

    def _close(self, operation: Operation) -> None:
        parent = self._runs[PARENT]
        for child in self._connection.children(parent, self._spool.ids["experiment"]):
            if child.info.status == "RUNNING":
                self._client.set_terminated(child.info.run_id, operation["status"], operation["at"])
        self._client.set_terminated(parent, operation["status"], operation["at"])
        for tag in self._client.get_run(parent).data.tags.keys() & {"bloomline.driver", "bloomline.heartbeat"}:
            self._client.delete_tag(parent, tag)  # they tell of a process that works on the run: none does any more

    def _id(self, operation: Mapping[str, Any]) -> str:
        return self._runs[operation["key"]]

    def _model_id(self, fingerprint: str | None) -> str | None:
        if fingerprint is None:
            return None
        if fingerprint not in self._models:
            model = self._connection.find_model(fingerprint)
            if model is None:
                return None
            self._models[fingerprint] = model.model_id
        return self._models[fingerprint]


def _address(experiment: str, run: str) -> str:
    """The address of a run's page within MLflow's web interface."""
    return f"#/experiments/{experiment}/runs/{run}"


def _source(uri: str) -> str:
    return json.dumps({"uri": uri})
