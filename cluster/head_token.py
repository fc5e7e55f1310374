"""Whether the head of a cluster accepts us. Asked once: Ray tries a wrong token for 20 s, a wrong port without end."""

from __future__ import annotations

from typing import Any

import ray

from cluster.base import ClusterError
from stages.addresses import redact_url

SET_TOKEN = (
    "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token, or write the token to ~/.ray/auth_token (or to "
    "the file that RAY_AUTH_TOKEN_PATH names)."
)


def expect_accepted(address: str, timeout_s: float) -> None:
    """Raise ClusterError if the head at HOST:PORT rejects the token or lacks one, or if it is another server.

    Returns in every other case, also if the head does not answer: joining it says why.
    """
    try:  # Ray has no public way to ask, and another version of it may have no such modules
        import grpc
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
    except ImportError:
        return
    where = f"The Ray cluster at {redact_url(address)}"
    try:
        with init_grpc_channel(address) as channel:
            head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=timeout_s)  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise ClusterError(f"{where} rejected the token, or none was sent. {SET_TOKEN}") from error
        speaks_http = any(words in (error.details() or "") for words in ("HTTP/2", "http1"))  # of a parsing error
        if speaks_http or error.code() == grpc.StatusCode.UNIMPLEMENTED:
            raise ClusterError(
                f"What answers at cluster.address={redact_url(address)} is not the head of a Ray cluster. Is it "
                "another port of it, such as its dashboard's? Expected the one that `ray start --head` named, "
                "usually HOST:6379."
            ) from error
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(f"No token for {where[0].lower()}{where[1:]} is set here. {SET_TOKEN}") from error
