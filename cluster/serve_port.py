"""The port of a served application: a free one, or the one that was asked for, which nothing else may hold."""

from __future__ import annotations

import errno
import socket

import psutil

from cluster.base import ClusterError
from cluster.network import LOOPBACK
from cluster.terminal_text import clean_line


def expect_free(port: int) -> None:
    """Raise ClusterError, which names the process that holds it, unless a server can listen on a port of loopback."""
    with socket.socket() as probe:
        # As servers do: connections of a server that has ended do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ClusterError(
                    f"port: {port} is taken by {_holder(port)}; expected a port that nothing listens on: end that "
                    "process, set another port, or leave port out for a free one."
                ) from None
            raise ClusterError(
                f"port: this user cannot listen on port {port} ({error.strerror}): set one above 1023."
            ) from None


def _holder(port: int) -> str:
    """The process that listens on a port, in words, as far as this user may know it."""
    try:
        listeners = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        listeners = []
    pids = [one.pid for one in listeners if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN]
    pid = next((one for one in pids if one), None)
    if pid is None:
        return "a process of another user"
    try:
        command = psutil.Process(pid).cmdline()
        words = " ".join(clean_line(" ".join(command)).split())[:80] or psutil.Process(pid).name()
    except (psutil.Error, OSError):
        return f"process {pid}"
    return f"process {pid} ({words})"
