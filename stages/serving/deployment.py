"""A deployment: an artifact with everything that a server needs, in one directory.

    deployment.json    how it is served: the artifact's type, names, replicas, limits
    model/             the artifact
    serve.yaml         a config for `serve run` and `serve deploy`

A deployment can be moved and copied, and is served from wherever it is opened (`application`). `serve.yaml` has no path
of the machine that made it: its factory is `create`, which finds the directory where it runs. `serve_config` makes a
config that names the copy in this directory.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from stages.artifacts.checkpoint import Checkpoint
from stages.base import Application, ArtifactError, Config, ExampleRequest, Servable, StageError
from stages.model.config import DecoderConfig
from stages.model.footprint import RUNTIME_BYTES, attention_bytes, cache_bytes, forward_bytes, weight_bytes
from stages.packages import OWN_PACKAGES
from stages.registry import PACKAGES_VARIABLE, is_declared

DEPLOYMENT, MODEL, SERVE_CONFIG = "deployment.json", "model", "serve.yaml"
DIRECTORY_VARIABLE = "BLOOMLINE_DEPLOYMENT"  # the deployment's directory on this machine, for `create`
CHECKPOINT = "stages.artifacts.checkpoint:Checkpoint"
# Requests that a replica accepts in addition to those that generate or wait: health, metrics, and those refused by 429.
SPARE_REQUESTS = 32
JSON_LIMIT_BYTES = 1 << 20
FACTORY = "stages.serving.deployment:create"  # of every serve.yaml (see `cluster.serve.BuildArguments`)


class Serving(Config):
    """How an artifact is served. The replicas, CPUs and GPUs replace those of the artifact's own application."""

    artifact: str  # the artifact's type, "module:Class"
    model_name: str = Field(min_length=1, max_length=200)  # the name by which clients address it
    registered_name: str  # its name in the model registry
    alias: str  # the registry alias that points to this version
    replicas: PositiveInt = 1
    cpus: float = Field(default=1.0, gt=0)  # of one replica
    gpus: float = Field(default=0.0, ge=0)

    def application(self, artifact: Servable) -> Application:
        """The application that serves an artifact in this way."""
        own = artifact.application()
        resources = own.resources.model_copy(update={"cpus": self.cpus, "gpus": self.gpus})
        return replace(own, name=self.model_name, replicas=self.replicas, resources=resources)

    def examples(self, artifact: Servable) -> Sequence[ExampleRequest]:
        """Those of the artifact."""
        return artifact.examples()

    def serve_config(self, artifact: Servable, factory: str = "", arguments: Mapping[str, Any] = {}) -> str:
        """A Ray Serve config (YAML) that serves an artifact in this way.

        `factory`, `arguments`: what creates the application in a replica, if not the artifact's own.
        """
        import yaml

        application = self.application(artifact)
        actor: dict[str, float] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if memory_bytes := application.resources.memory_bytes:
            actor["memory"] = memory_bytes
        created = {
            "factory": factory or application.factory,
            "arguments": dict(arguments if factory else application.arguments),
        }
        config = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "logging_config": {"enable_access_log": False},
            "applications": [
                {
                    "name": application.name,
                    "route_prefix": "/",
                    "import_path": "cluster.serve:build",
                    "args": created,
                    "deployments": [
                        {
                            "name": "Asgi",
                            "num_replicas": application.replicas,
                            "max_ongoing_requests": application.max_ongoing_requests,
                            "max_queued_requests": application.max_ongoing_requests,
                            "ray_actor_options": actor,
                        }
                    ],
                }
            ],
        }
        return head(application.factory) + str(yaml.safe_dump(config, sort_keys=False))


class LanguageModelServing(Serving):
    """How a Checkpoint is served: with the limits of its engine."""

    artifact: str = CHECKPOINT
    max_running: PositiveInt = 8  # sequences in a replica's running batch
    max_waiting: NonNegativeInt = 64  # requests in a replica's queue; those beyond it are refused with 429
    prefill_chunk: PositiveInt = 256  # prompt tokens read between two steps of the running batch
    request_timeout_s: PositiveFloat = 600.0  # from the arrival of a request to the end of its answer
    prompt: str = Field(default="def ", min_length=1)  # of its example request
    max_tokens: PositiveInt = 40  # of the answer to it

    def examples(self, artifact: Servable) -> Sequence[ExampleRequest]:
        """A request for a completion by the name of the model."""
        body = {"model": self.model_name, "prompt": self.prompt, "max_tokens": self.max_tokens}
        return [ExampleRequest("POST", "/v1/completions", body)]

    def application(self, artifact: Servable) -> Application:
        """The application that serves a Checkpoint with these limits (see `stages.serving.service.Arguments`)."""
        found = super().application(artifact)
        arguments = {
            **found.arguments,
            "model_name": self.model_name,
            "max_running": self.max_running,
            "max_waiting": self.max_waiting,
            "prefill_chunk": self.prefill_chunk,
            "request_timeout_s": self.request_timeout_s,
            "threads": max(1, int(self.cpus)),
        }
        ongoing = self.max_running + self.max_waiting + SPARE_REQUESTS
        # With a GPU, the model is in the GPU's memory.
        config = artifact.config if isinstance(artifact, Checkpoint) and not self.gpus else None
        memory = replica_bytes(config, self.max_running, self.prefill_chunk) if config else 0
        return replace(
            found,
            arguments=arguments,
            max_ongoing_requests=ongoing,
            resources=found.resources.model_copy(update={"memory_bytes": memory}),
            drain_timeout_s=self.request_timeout_s,
        )


def replica_bytes(config: DecoderConfig, max_running: int, prefill_chunk: int) -> int:
    """The memory that one replica of a Checkpoint needs on CPUs."""
    computing = forward_bytes(config, 1, prefill_chunk) + attention_bytes(config)
    return RUNTIME_BYTES + weight_bytes(config) + cache_bytes(config, max_running) + computing


@dataclass(frozen=True)
class Deployment(Servable):
    """An artifact with how it is served."""

    is_model: ClassVar[bool] = False  # the model is the artifact that was deployed

    @property
    def model(self) -> Servable:
        """The artifact that is served. Raises ArtifactError if its type cannot be imported."""
        return _servable_type(self.path / DEPLOYMENT, self.serving.artifact)(self.path / MODEL)

    @property
    def serving(self) -> Serving:
        value = self._json(DEPLOYMENT)
        kind = LanguageModelServing if "max_running" in value else Serving
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise ArtifactError(f"{self.path / DEPLOYMENT} is not a deployment: {where}: {first['msg']}") from None

    def application(self) -> Application:
        """The application that serves the artifact in this directory."""
        return self.serving.application(self.model)

    def examples(self) -> Sequence[ExampleRequest]:
        return self.serving.examples(self.model)

    def serve_config(self) -> str:
        """A Ray Serve config (YAML) for the artifact in this directory."""
        return self.serving.serve_config(self.model, FACTORY, {"directory": str(self.path.absolute())})

    def check(self) -> None:
        self.model.check()
        if not (self.path / SERVE_CONFIG).is_file():
            raise ArtifactError(f"{self.path / SERVE_CONFIG} is missing")

    def describe(self) -> Mapping[str, object]:
        return self.serving.model_dump()

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
            raise ArtifactError(f"{path} does not contain a JSON object")
        return value


def write(path: Path, serving: Serving, artifact: Servable) -> Deployment:
    """Write a deployment into the directory `path`. Raises StageError."""
    arguments = serving.application(artifact).arguments
    try:
        json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError) as error:
        kind = type(artifact).__name__
        raise StageError(f"{kind}.application() has arguments that are not JSON values: {error}") from None
    shutil.copytree(artifact.path, path / MODEL)
    (path / DEPLOYMENT).write_text(serving.model_dump_json(indent=2) + "\n")
    moved = serving.serve_config(artifact, FACTORY, {"directory": "."})
    (path / SERVE_CONFIG).write_text(moved)
    return Deployment(path)


def head(factory: str) -> str:
    """How to use a serve.yaml, as comments for its first lines. `factory`: that of the artifact's application."""
    package = factory.partition(":")[0].partition(".")[0]
    needed = "bloomline" if package in OWN_PACKAGES else f"bloomline, the package {package!r}"
    declared = (
        ""
        if package in OWN_PACKAGES
        else f"# Unless {package!r} declares stages by entry points, set {PACKAGES_VARIABLE}={package} there too.\n"
    )
    return (
        "# In the directory of this file:  serve run serve.yaml\n"
        "# On a Ray cluster:               serve deploy serve.yaml\n"
        f"# Every node that serves it needs {needed} and a copy of this directory: Ray Serve copies neither.\n"
        + declared
        + f"# The environment variable {DIRECTORY_VARIABLE} of a node's Ray processes names its copy. Or write its\n"
        "# path, the same on every node, into arguments.directory. A cluster has one Serve: if one is running, its\n"
        "# http_options stay as they are. This one listens on the loopback interface only; http_options.host: 0.0.0.0\n"
        "# opens it to the network.\n"
    )


def create(arguments: Mapping[str, Any]) -> Any:
    """The ASGI application of the deployment in the directory that BLOOMLINE_DEPLOYMENT or `directory` names.

    The factory of `serve.yaml`, called in each replica. Raises ArtifactError if there is no deployment.
    """
    directory = Path(os.environ.get(DIRECTORY_VARIABLE) or arguments["directory"]).absolute()
    if not (directory / DEPLOYMENT).is_file():
        raise ArtifactError(
            f"{directory} on {socket.gethostname()} is not a deployment. Copy the directory of serve.yaml to every "
            f"node that serves it, and name the copy with the environment variable {DIRECTORY_VARIABLE} of the "
            "node's Ray processes, or with arguments.directory in serve.yaml."
        )
    application = Deployment(directory).application()
    module, _, function = application.factory.partition(":")
    return getattr(importlib.import_module(module), function)(application.arguments)


def type_name(kind: type[Servable]) -> str:
    """The name by which a deployment finds the type of its artifact. Raises StageError if it has none."""
    if kind.__qualname__ != kind.__name__:
        raise StageError(f"{kind.__qualname__} cannot be deployed: define it at the top level of a module")
    return f"{kind.__module__}:{kind.__name__}"


def _servable_type(source: Path, name: str) -> type[Servable]:
    """The artifact type that a deployment's file names. Raises ArtifactError.

    Importing a module runs it. A file does not decide what runs: the module was imported before, for a stage that names
    the type, or its package is declared to bloomline.
    """
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    if module not in sys.modules and not is_declared(package):
        raise ArtifactError(
            f"{source} needs the artifact type {name!r}, whose package is not declared to bloomline and is not "
            f"imported. If it is yours, declare an entry point `bloomline.stages` in it, name it in `packages` of the "
            f"project, or set {PACKAGES_VARIABLE}={package or 'PACKAGE'} where it is served."
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the user's module raises
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(
            f"{source} needs the artifact type {name!r}, which cannot be imported ({reason}): install its package, or "
            "run in its project"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Servable)):
        raise ArtifactError(f"{source}: {name!r} is not the type of a servable artifact")
    return found
