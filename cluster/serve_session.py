"""The Ray Serve of a cluster, of which there is one: joined or started, and ended if a run of ours started it.

A Serve that someone else started keeps its options and its applications: ours are served next to them. One that a run
started is marked as ours. It ends with its last application, so that a later `serve deploy` gets its own options.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray._private.state import jobs
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.serve.context import _get_global_client

from cluster import serve_internal_port
from cluster.network import LOOPBACK, free_port
from cluster.serve_port import expect_free
from stages.base import StageError

MARK, NAMESPACE = b"serve", b"bloomline"  # in Ray's key-value store: the id of the controller that we started
NAME = re.compile(r".+-(?P<job>[0-9a-f]{8})-(?P<owner>[0-9a-f]{8})-[0-9a-f]{4}(-proxy)?")
PROXY = "-proxy"
END_TIMEOUT_S = 60.0  # for the applications of a process that could not end them itself
ANY_ADDRESS = ("0.0.0.0", "::", "localhost", LOOPBACK)


def application_name(name: str, owner: str) -> str:
    """A name for an application that no other has on the cluster.

    `owner`: 8 hexadecimal digits of the process in this job that starts it.
    """
    return f"{name}-{ray.get_runtime_context().get_job_id()}-{owner}-{uuid.uuid4().hex[:4]}"


def join(port: int | None = None) -> str:
    """The URL under which Serve answers on this machine. Starts Serve if it is not running, on `port` or a free one.

    Raises StageError if a Serve is running that can't be reached from here or has another port, ClusterError if the
    port is taken.
    """
    if _client() is None:
        if port is not None:
            expect_free(port)
        serve.start(proxy_location="EveryNode", http_options={"host": LOOPBACK, "port": port or free_port()})
        _internal_kv_put(MARK, _controller(), overwrite=True, namespace=NAMESPACE)
    client = _client()
    assert client is not None
    if port not in (None, client.http_config.port):
        raise StageError(
            f"port: Ray Serve is already running on this cluster, on port {client.http_config.port}, and a cluster has "
            f"one: set port={client.http_config.port} or leave port out."
        )
    for name in list(serve.status().applications):
        if _is_abandoned(name):
            serve.delete(name)
    return _url(client.http_config)


def is_ours() -> bool:
    """Whether the Serve that is running was started by a run of ours."""
    return _client() is not None and _internal_kv_get(MARK, namespace=NAMESPACE) == _controller()


def proxy_here(name: str) -> serve.RunTarget | None:
    """What makes Serve run a proxy on this node, to be run next to the application `name`; None if nothing is needed.

    Serve runs proxies on the head and where replicas are. This is a replica without work.
    """
    if _is_head():
        return None
    here = {"label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
    nothing = serve.deployment(name="Proxy", ray_actor_options={"num_cpus": 0, **here})(_Nothing)
    return serve.RunTarget(nothing.bind(), name=f"{name}{PROXY}", route_prefix=None)


class _Nothing:
    """A deployment without methods."""

    def __init__(self) -> None:
        serve_internal_port.keep_closed()


def end(name: str, timeout_s: float) -> None:
    """Finish the requests of an application and end it, and Serve with it if it was the last of a Serve of ours.

    timeout_s: after which the application may still be finishing requests.
    """
    if _client() is not None:
        _end([found for found in serve.status().applications if found in (name, f"{name}{PROXY}")], timeout_s)


def end_all_of(owner: str) -> None:
    """End the applications of a process of this job that could not end them itself."""
    if not any(actor["namespace"] == "serve" for actor in ray.util.list_named_actors(all_namespaces=True)):
        return
    this_job = ray.get_runtime_context().get_job_id()
    if _client() is not None:
        _end([name for name in serve.status().applications if _started_by(name) == (this_job, owner)], END_TIMEOUT_S)


def _end(names: Sequence[str], timeout_s: float) -> None:
    """End applications, then a Serve of ours that has none left."""
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + timeout_s
    while serve.status().applications.keys() & set(names) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_ours() and not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _is_abandoned(name: str) -> bool:
    """Whether an application was started by a run whose driver has ended."""
    job_id, _ = _started_by(name)
    return any(job["JobID"] == job_id and job["IsDead"] for job in jobs())  # type: ignore[no-untyped-call]


def _started_by(name: str) -> tuple[str, str]:
    """The job and the owner of an application of ours; two empty texts for those of others."""
    match = NAME.fullmatch(name)
    return (match["job"], match["owner"]) if match else ("", "")


def _url(options: Any) -> str:
    """Where the proxies with these options answer on this machine. Raises StageError."""
    location = str(getattr(options.location, "value", options.location))
    found = f"proxy_location {location}, host {options.host}, port {options.port}"
    if options.host is None or location in ("Disabled", "NoServer") or options.ssl_certfile:
        reason = "it answers HTTPS only" if options.ssl_certfile else "it has no HTTP proxy"
    elif location == "HeadOnly" and not _is_head() and options.host in ("localhost", LOOPBACK):
        reason = "its only proxy listens on the loopback interface of the head, which is another node"
    else:
        host = LOOPBACK if options.host in ANY_ADDRESS else options.host
        if location == "HeadOnly" and not _is_head():
            host = ray.get_runtime_context().gcs_address.rpartition(":")[0]
        host = f"[{host.strip('[]')}]" if ":" in host else host
        return f"http://{host}:{options.port}{options.root_path}"
    raise StageError(
        f"Ray Serve is already running on this cluster ({found}) and can't be used: {reason}. A cluster has one Serve. "
        "Start it with proxy_location: EveryNode and HTTP, or stop it with `serve shutdown`: a run then starts its own."
    )


def _is_head() -> bool:
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return any(node["NodeID"] == here and "node:__internal_head__" in node["Resources"] for node in alive)


def _client() -> Any:
    return _get_global_client(raise_if_no_controller_running=False)


def _controller() -> bytes:
    return str(_client()._controller._actor_id.hex()).encode()
