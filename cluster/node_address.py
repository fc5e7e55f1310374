"""The address by which Ray knows this node, and the network interface that has it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import psutil
import ray


def node_address() -> str:
    """The address of this process's node."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def use_interface(address: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make gloo and NCCL use the interface that has `address`, unless the user has chosen one.

    Without this, gloo uses the address to which this machine's host name resolves, often 127.0.1.1, which no other
    node can reach, and NCCL the first interface that it finds. Nothing is set if no interface has the address.
    """
    if interface := interface_of(address):
        environment.setdefault("GLOO_SOCKET_IFNAME", interface)
        environment.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # without =, a prefix of names


def interface_of(address: str) -> str | None:
    """The name of the network interface with an IPv4 or IPv6 address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address.partition("%")[0] == address for found in addresses):
            return str(name)
    return None
