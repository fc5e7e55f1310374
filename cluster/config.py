"""Which cluster a run uses, as typed config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from stages.base import Config

MINIMUM_OBJECT_STORE_BYTES = 78_643_200  # Ray refuses less
LARGEST_UPLOAD_BYTES = 104_857_600  # of a request: Ray's dashboard answers a larger one with 413


class HttpLimits(Config):
    """What the clients of a served application may send and hold. Each server has its own connections.

    A gateway in front of the server needs limits for each client: these are for all clients together.
    """

    connection_limit: PositiveInt = 512  # connections at once; more are answered with 503
    header_limit_bytes: PositiveInt = 32_768  # of a request's line and headers; more is answered with 431
    header_count_limit: PositiveInt = 100  # headers of a request; more are answered with 431
    header_timeout_s: PositiveFloat = 10.0  # from a request's first byte to the end of its headers, else 408
    body_limit_bytes: PositiveInt = 67_108_864  # of a request's body; more is answered with 413
    body_timeout_s: PositiveFloat = 60.0  # from the end of the headers to the end of the body, else 408
    send_timeout_s: PositiveFloat = 60.0  # for a client that does not read its answer, which is then disconnected
    host_names: tuple[str, ...] = ()  # accepted on the loopback interface besides localhost, 127.0.0.1 and ::1


Port = Annotated[int, Field(ge=1, le=65_535)]


class InlineCluster(Config):
    """This process, without Ray: one step after the other, one rank per gang. For debugging."""

    kind: Literal["inline"] = "inline"
    serve_port: Port | None = None  # of served applications, on the loopback interface; null: a free one
    http: HttpLimits = HttpLimits()  # of served applications


class LocalCluster(Config):
    """A Ray cluster on this machine, started for the run and stopped with it."""

    kind: Literal["local"] = "local"
    cpus: PositiveInt | None = None  # null: all that the machine has
    gpus: NonNegativeInt | None = None
    memory_bytes: PositiveInt | None = None
    gpu_memory_bytes: PositiveInt | None = None  # of each GPU, for the plan's memory check; null: no check
    custom: Mapping[str, NonNegativeFloat] = {}  # custom resources, by name
    object_store_bytes: Annotated[int, Field(ge=MINIMUM_OBJECT_STORE_BYTES)] = 134_217_728  # steps pass files, not data
    placement_timeout_s: PositiveFloat = 60.0  # how long a gang waits for free resources
    serve_port: Port | None = None  # of served applications, on the loopback interface; null: a free one
    http: HttpLimits = HttpLimits()  # of served applications


# What of Ray's runtime environments is passed on. `py_modules` are our packages, which `packages` adds to; the
# `working_dir` of a submitted job is the copy of the project.
RUNTIME_ENV_FIELDS = ("pip", "uv", "conda", "env_vars", "image_uri", "py_modules", "working_dir", "excludes", "config")


class KubernetesPod(Config):
    """What one pod of Ray asks of Kubernetes."""

    cpus: PositiveInt = 2
    memory_bytes: PositiveInt = 8_589_934_592
    gpus: NonNegativeInt = 0


class Kubernetes(Config):
    """A Ray cluster that KubeRay makes: what `bloomline manifest` writes."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$")] = "bloomline"
    image: str = "bloomline:latest"  # of the head and the workers, see examples/cluster/Dockerfile
    workers: NonNegativeInt = 2
    head: KubernetesPod = KubernetesPod()
    worker: KubernetesPod = KubernetesPod(cpus=4, memory_bytes=17_179_869_184)
    secrets: tuple[str, ...] = ()  # names of Kubernetes secrets whose keys become environment variables
    volume_claim: str = ""  # the name of a claim that every pod mounts at `volume_path`, for a store
    volume_path: str = "/shared"


class RemoteCluster(Config):
    """A Ray cluster that is already running."""

    kind: Literal["remote"] = "remote"
    address: str = "auto"  # run: auto (on one of its nodes) or HOST:PORT of its head; submit: http://HOST:8265
    entrypoint_cpus: NonNegativeFloat = 1.0  # submit: reserved for the driver, which keeps it off a head with 0 CPUs
    include: tuple[str, ...] = ()  # submit: what is sent although it is left out by default, as in a .gitignore
    # submit: of the directory
    upload_limit_bytes: Annotated[PositiveInt, Field(le=LARGEST_UPLOAD_BYTES)] = LARGEST_UPLOAD_BYTES
    runtime_env: Mapping[str, Any] = {}  # Ray's: pip, env_vars, image_uri, ...; Ray shows its env_vars to everyone
    forward_env: tuple[str, ...] = ()  # submit: variables of this environment that the job gets, by name or pattern
    kubernetes: Kubernetes = Kubernetes()  # manifest: the cluster that KubeRay makes
    gpu_memory_bytes: PositiveInt | None = None  # of each GPU, for the plan's memory check; null: no check
    connect_timeout_s: PositiveFloat = 10.0
    reconnect_timeout_s: PositiveFloat = 600.0  # submit, attach: how long the cluster may be out of reach meanwhile
    serve_port: Port | None = None  # of Ray Serve, where it is not running yet; null: a free one
    placement_timeout_s: PositiveFloat = 600.0  # how long a step or gang waits for resources: the cluster may grow

    @model_validator(mode="before")
    @classmethod
    def _without_http(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "http" in values:
            raise ValueError(
                "http is of a server that is started here; the proxies of a running cluster have the limits that "
                "BLOOMLINE_HTTP_LIMITS gave when Ray was started there, see docs/serving.md"
            )
        return values

    @field_validator("runtime_env")
    @classmethod
    def _known_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := sorted(set(fields) - set(RUNTIME_ENV_FIELDS)):
            raise ValueError(
                f"{', '.join(unknown)}: expected fields of Ray's runtime_env, {', '.join(RUNTIME_ENV_FIELDS)}"
            )
        variables = fields.get("env_vars", {})
        if not isinstance(variables, Mapping) or not all(isinstance(value, str) for value in variables.values()):
            raise ValueError("env_vars: expected names with strings; write a number in quotes")
        return fields

    @field_validator("address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if address == "auto" or re.fullmatch(
            r"https?://[^\s/]+(/\S*)?|[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address
        ):
            return address
        raise ValueError("expected auto, HOST:PORT (run) or http://HOST:8265 (submit)")


ClusterConfig = Annotated[InlineCluster | LocalCluster | RemoteCluster, Field(discriminator="kind")]
