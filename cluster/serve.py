"""Serving on Ray: an ASGI application as a Ray Serve deployment, for a step's own trial and for production alike.

`start` serves on the current Ray session. `build` is what a Serve config names (`import_path: cluster.serve:build`), so
that `serve run` and `serve deploy` bring up the same thing. Any number of replicas; each makes its own application.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus

from cluster.application import LOOPBACK, free_port, make, wait_until_answers
from stages.base import Application, Config, StageError

DRAIN_TIMEOUT_S = 30.0
START_TIMEOUT_S = 180.0


class BuildArguments(Config):
    """`args` of an application in a Serve config."""

    factory: str  # "module:function", called in each replica with `arguments`
    arguments: Mapping[str, Any] = {}


@serve.deployment(
    graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S,
    graceful_shutdown_wait_loop_s=0.1,
    # The application refuses what is too much with a 429; this is the answer when a whole replica is full.
    backpressure_config={"status_code": 429, "retry_after_s": 1},
)
@serve.ingress()
class Asgi:
    """A replica of an ASGI application."""

    def __init__(self, factory: str, arguments: Mapping[str, Any]) -> None:
        self._factory, self._arguments = factory, arguments

    def __serve_build_asgi_app__(self) -> Any:
        return make(self._factory, self._arguments)


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of a Serve config's `args` (see `BuildArguments`)."""
    wanted = BuildArguments.model_validate(args)
    return Asgi.bind(wanted.factory, dict(wanted.arguments))


@dataclass
class ServedOnRay:
    """An application on Ray Serve."""

    url: str
    name: str

    def running(self) -> bool:
        found = serve.status().applications.get(self.name)
        return found is not None and found.status != ApplicationStatus.DEPLOY_FAILED

    def stop(self) -> None:
        """Finish the requests that are being answered and end; ends Serve too when nothing else is served."""
        serve.delete(self.name)
        if not serve.status().applications:
            serve.shutdown()


def start(application: Application) -> ServedOnRay:
    """Serve an application on the current Ray session; returns once it answers. Raises StageError."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    address = _ingress()
    name = f"{application.name}-{uuid.uuid4().hex[:8]}"
    prefix = f"/{name}" if serve.status().applications else "/"
    resources = application.resources
    deployment = Asgi.options(
        num_replicas=application.replicas,
        max_ongoing_requests=application.max_ongoing_requests,
        max_queued_requests=application.max_ongoing_requests,
        ray_actor_options={
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "memory": resources.memory_bytes or None,
            "resources": dict(resources.custom),
        },
    )
    served = ServedOnRay(f"{address}{prefix}".rstrip("/"), name)
    try:
        serve._run(
            deployment.bind(application.factory, dict(application.arguments)),
            _blocking=False,
            name=name,
            route_prefix=prefix,
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        if wait_until_answers(served.url, served.running, START_TIMEOUT_S):
            return served
        raise StageError(f"{application.name!r} could not be served on Ray: {_reason(name)}")
    except BaseException:
        served.stop()
        raise


def _reason(name: str) -> str:
    """Why an application does not run, in Serve's words."""
    found = serve.status().applications.get(name)
    if found is None:
        return "Serve does not know it any more"
    messages = [found.message, *(deployment.message for deployment in found.deployments.values())]
    return "\n".join(message for message in messages if message)[-2000:] or f"it is {found.status.value}"


def _ingress() -> str:
    """The address of Serve's HTTP proxy; starts Serve, on a free port, where it does not run yet.

    On one machine it listens on the loopback interface alone, in a cluster on the head node's address.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    host = LOOPBACK if len(nodes) == 1 else "0.0.0.0"
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": free_port()})
    options = _get_global_client().http_config  # what is in force: an earlier start may have decided otherwise
    if options.host in (LOOPBACK, "localhost"):
        return f"http://{LOOPBACK}:{options.port}"
    head = next(node for node in nodes if "node:__internal_head__" in node["Resources"])
    return f"http://{head['NodeManagerAddress']}:{options.port}"
