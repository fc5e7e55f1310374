"""Serving on Ray: an ASGI application as a Ray Serve deployment, both for the trial in a step and for production.

`start` serves on the current Ray session. A Serve config names `build` (`import_path: cluster.serve:build`), so that
`serve run` and `serve deploy` start the same deployment. Each replica creates its own application.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray import serve
from ray.serve.schema import ApplicationStatus

from cluster import process_setup, serve_internal_port, serve_proxy, serve_session
from cluster.asgi import check_factory, create_application, status_of
from cluster.network import wait_until_answers
from stages.base import Application, Config, StageError
from stages.child_environment import forget_keys

HEALTH_PERIOD_S = 2.0  # between two checks of a replica
HEALTH_TIMEOUT_S = 5.0  # of a check; after three failed ones the replica is replaced
DRAIN_TIMEOUT_S = 30.0  # for the requests in flight, where a Serve config says nothing else
DELETE_TIMEOUT_S = 30.0  # for a drained application to end
REPLICA_VARIABLE = "BLOOMLINE_REPLICA"  # tells an application the name of its replica
START_TIMEOUT_S = 180.0  # until all replicas run
ANSWER_TIMEOUT_S = 30.0  # and then until HTTP requests reach them


class BuildArguments(Config):
    """`args` of an application in a Serve config. A config is data: it chooses among the factories of bloomline.

    That of a deployment calls the factory that the type of its artifact declares.
    """

    factory: Literal["stages.serving.deployment:create", "stages.serving.http:create"]  # called in each replica
    arguments: Mapping[str, Any] = {}


@serve.ingress()
class _Replica:
    """A replica, which creates its own ASGI application."""

    def __init__(self, factory: str, arguments: Mapping[str, Any]) -> None:
        serve_internal_port.keep_closed()
        process_setup.enter_project()
        forget_keys()
        self._factory, self._arguments = factory, arguments

    def __serve_build_asgi_app__(self) -> Any:
        name = os.environ[REPLICA_VARIABLE] = serve.get_replica_context().replica_id.unique_id
        self._app = create_application(self._factory, self._arguments)
        return _named(self._app, name)

    async def check_health(self) -> None:
        """Called by Serve periodically. Serve replaces a replica whose application reports a failure."""
        if (status := await status_of(self._app, "/health")) >= 500:
            raise RuntimeError(f"the application answered /health with status {status}")


def _named(app: Any, replica: str) -> Any:
    """An application whose answers name their replica."""

    async def named(scope: Any, receive: Any, send: Any) -> None:
        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (serve_proxy.REPLICA_HEADER, replica.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await app(scope, receive, send_named)

    return named


ASGI: serve.Deployment = serve.deployment(
    name="Asgi",
    health_check_period_s=HEALTH_PERIOD_S,
    health_check_timeout_s=HEALTH_TIMEOUT_S,
    graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S,
    graceful_shutdown_wait_loop_s=0.1,
    max_constructor_retry_count=1,  # a second attempt to load a model would fail too
    # The application itself rejects excess requests with a 429. This is the response if a replica is full.
    backpressure_config={"status_code": 429, "retry_after_s": 1},
)(_Replica)


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of a Serve config's `args` (see `BuildArguments`)."""
    wanted = BuildArguments.model_validate(args)
    return ASGI.bind(wanted.factory, dict(wanted.arguments))


@dataclass
class ServedOnRay:
    """An application on Ray Serve."""

    url: str
    name: str
    drain_timeout_s: float

    def running(self) -> bool:
        found = serve.status().applications.get(self.name)
        return found is not None and found.status != ApplicationStatus.DEPLOY_FAILED

    def stop(self) -> None:
        """Finish the requests in flight and end, and Serve too if nothing else uses it and we started it."""
        serve_session.end(self.name, self.drain_timeout_s + DELETE_TIMEOUT_S)

    def log(self) -> str:
        logs = "session_latest/logs/serve in the temporary directory of Ray"
        return f"The logs of its replicas are replica_{self.name}_*.log below {logs}, on the nodes of its replicas."


def start(application: Application, owner: str | None = None, port: int | None = None) -> ServedOnRay:
    """Serve an application on the current Ray session and return once it answers. Raises StageError if it does not.

    Replicas run on any node that has the resources: the files that the application reads are in the store, which all
    nodes share. `owner`: 8 hexadecimal digits by which the driver ends the application if this process can't. `port`:
    None stands for a free one.
    """
    check_factory(application.factory)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    address = serve_session.join(port)
    name = serve_session.application_name(application.name, owner or uuid.uuid4().hex[:8])
    prefix = "/" if serve_session.is_ours() and not serve.status().applications else f"/{name}"
    resources = application.resources
    deployment = ASGI.options(
        num_replicas=application.replicas,
        max_ongoing_requests=application.max_ongoing_requests,
        max_queued_requests=application.max_ongoing_requests,
        graceful_shutdown_timeout_s=application.drain_timeout_s,
        ray_actor_options={
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "memory": resources.memory_bytes or None,
            "resources": dict(resources.custom),
        },
    )
    served = ServedOnRay(f"{address}{prefix}".rstrip("/"), name, application.drain_timeout_s)
    target = serve.RunTarget(
        deployment.bind(application.factory, dict(application.arguments)),
        name=name,
        route_prefix=prefix,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    targets = [target, *filter(None, [serve_session.proxy_here(name)])]
    try:
        serve.run_many(targets, wait_for_applications_running=False)
        _wait_until_running(application, name)
        if wait_until_answers(served.url, served.running, ANSWER_TIMEOUT_S):
            return served
        raise StageError(f"{application.name!r} runs on Ray but does not answer at {served.url}.")
    except BaseException:
        served.stop()
        raise


def _wait_until_running(application: Application, name: str) -> None:
    """Wait until every replica runs. Raises StageError with Serve's message if one fails or it takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        found = serve.status().applications[name]
        if found.status == ApplicationStatus.RUNNING:
            return
        if found.status == ApplicationStatus.DEPLOY_FAILED or time.monotonic() > deadline:
            messages = [found.message, *(deployment.message for deployment in found.deployments.values())]
            message = "\n".join(text for text in messages if text)[-2000:]
            raise StageError(f"{application.name!r} could not be served on Ray: {message or found.status.value}")
        time.sleep(0.05)
