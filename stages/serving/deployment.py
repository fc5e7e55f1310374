"""A served model: everything that a server needs, in one directory.

    deployment.json    how it is served: names, replicas, the engine's limits
    model/             the Checkpoint
    serve.yaml         a config that `serve run` and `serve deploy` accept
    trial.json         what was measured when it was served once

It can be served from wherever it is opened (`application`). `serve.yaml` names the model by an absolute path: that of
the Checkpoint that the deploying step read; `serve_config` makes one for the model inside this directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from stages.artifacts.checkpoint import Checkpoint
from stages.base import Application, ArtifactError, Config, Resources, Servable

DEPLOYMENT, MODEL, SERVE_CONFIG, TRIAL = "deployment.json", "model", "serve.yaml", "trial.json"
FACTORY = "stages.serving.http:create"
# Requests that a replica takes beside those that generate or wait: health, metrics, and those that get a 429.
SPARE_REQUESTS = 32
JSON_LIMIT_BYTES = 1 << 20


class Serving(Config):
    """How a model is served."""

    model_name: str = Field(min_length=1, max_length=200)  # what clients call it
    registered_name: str  # its name in the model registry
    alias: str  # the registry alias that points to this version
    replicas: PositiveInt = 1
    cpus: float = Field(default=1.0, gt=0)  # of one replica
    gpus: float = Field(default=0.0, ge=0)
    max_running: PositiveInt = 8  # sequences in a replica's running batch
    max_waiting: NonNegativeInt = 64  # and waiting for it; more are refused with 429
    prefill_chunk: PositiveInt = 256  # prompt tokens read between two steps of the running batch

    @property
    def max_ongoing_requests(self) -> int:
        return self.max_running + self.max_waiting + SPARE_REQUESTS

    def arguments(self, model: Path) -> dict[str, Any]:
        """The arguments of `stages.serving.http:create` for a Checkpoint at `model`."""
        return {
            "model": str(model.absolute()),
            "model_name": self.model_name,
            "max_running": self.max_running,
            "max_waiting": self.max_waiting,
            "prefill_chunk": self.prefill_chunk,
            "threads": max(1, int(self.cpus)),
        }

    def application(self, model: Path) -> Application:
        return Application(
            name=self.model_name,
            factory=FACTORY,
            arguments=self.arguments(model),
            replicas=self.replicas,
            max_ongoing_requests=self.max_ongoing_requests,
            resources=Resources(cpus=self.cpus, gpus=self.gpus),
        )

    def serve_config(self, model: Path) -> str:
        """A Ray Serve config (YAML) that serves a Checkpoint at `model`."""
        import yaml

        config = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "logging_config": {"enable_access_log": False},
            "applications": [
                {
                    "name": self.model_name,
                    "route_prefix": "/",
                    "import_path": "cluster.serve:build",
                    "args": {"factory": FACTORY, "arguments": self.arguments(model)},
                    "deployments": [
                        {
                            "name": "Asgi",
                            "num_replicas": self.replicas,
                            "max_ongoing_requests": self.max_ongoing_requests,
                            "max_queued_requests": self.max_ongoing_requests,
                            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus},
                        }
                    ],
                }
            ],
        }
        head = (
            "# Serve it:   serve run serve.yaml     (on this machine)\n"
            "#             serve deploy serve.yaml  (on a Ray cluster; every node needs the model at its path)\n"
            "# It listens on this machine alone; http_options.host: 0.0.0.0 opens it to the network.\n"
        )
        return head + str(yaml.safe_dump(config, sort_keys=False))


@dataclass(frozen=True)
class Deployment(Servable):
    """A model with how it is served, tried once over HTTP."""

    @property
    def model(self) -> Checkpoint:
        return Checkpoint(self.path / MODEL)

    @property
    def serving(self) -> Serving:
        try:
            return Serving.model_validate(self._json(DEPLOYMENT))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(f"{self.path / DEPLOYMENT} is no deployment: {where}: {first['msg']}") from None

    @property
    def measured(self) -> Mapping[str, float]:
        """What the trial measured, by metric name."""
        return self._json(TRIAL)

    def application(self) -> Application:
        """What to serve, with the model in this directory."""
        return self.serving.application(self.path / MODEL)

    def serve_config(self) -> str:
        """A Ray Serve config (YAML) for the model in this directory."""
        return self.serving.serve_config(self.path / MODEL)

    def check(self) -> None:
        self.model.check()
        _ = self.serving, self.measured
        if not (self.path / SERVE_CONFIG).is_file():
            raise ArtifactError(f"{self.path / SERVE_CONFIG} is missing")

    def describe(self) -> Mapping[str, object]:
        return {**self.serving.model_dump(), **self.measured}

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            if path.stat().st_size > JSON_LIMIT_BYTES:
                raise ArtifactError(f"{path} is larger than {JSON_LIMIT_BYTES} bytes")
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise ArtifactError(f"{path} is not JSON") from None
        if not isinstance(value, dict):
            raise ArtifactError(f"{path} does not hold a JSON object")
        return value


def write(path: Path, serving: Serving, model: Checkpoint) -> Deployment:
    """Write a deployment of `model` into the directory `path`, all but the trial's result."""
    import shutil

    shutil.copytree(model.path, path / MODEL, ignore=shutil.ignore_patterns("figures"))
    (path / DEPLOYMENT).write_text(serving.model_dump_json(indent=2) + "\n")
    (path / SERVE_CONFIG).write_text(serving.serve_config(model.path))
    return Deployment(path)
