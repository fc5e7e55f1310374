"""Whether something answers at an address, known in seconds: Ray's own clients try for a minute, or end the process."""

from __future__ import annotations

import socket

from cluster.base import ClusterError


def probe(address: str, host: str, port: int, timeout_s: float, expected: str) -> None:
    """Raise ClusterError if no connection to `host:port` is taken. `address`: as it was configured."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"Nothing answers at cluster.address={address} ({error}). Expected {expected}, reachable from here."
        ) from error
