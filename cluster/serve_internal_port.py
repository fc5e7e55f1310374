"""Keeps replicas of Ray Serve from listening for calls of other deployments.

Each replica opens a port for them on every interface, unpickles what arrives there, and asks for no token: whoever
reaches the port can run code in the replica. Ray has no setting for it.
"""

from __future__ import annotations

from typing import Any

from ray.serve._private import constants, replica


def keep_closed() -> None:
    """Make the replica of this process start without that port. To be called in the constructor of a deployment.

    Nothing calls our deployments but Ray's HTTP proxies, which use Ray's own calls and its token. If the environment
    makes the proxies use the port (RAY_SERVE_USE_GRPC_BY_DEFAULT, RAY_SERVE_PROXY_USE_GRPC), it is opened.
    """
    if not constants.RAY_SERVE_PROXY_USE_GRPC:
        replica.add_port_to_grpc_server = _no_port  # type: ignore[attr-defined]


def _no_port(server: Any, address: str) -> int:
    return 0
