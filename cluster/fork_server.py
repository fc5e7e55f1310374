"""The process from which the processes of steps are forked, in milliseconds, because it has imported what they need.

It has one thread and no state. One byte with one end of a connection orders a fork. It sends back the exit status
of each process that has ended. When its own end of the socket is closed it ends, and the processes end with it.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from cluster import forked_process

EXIT = struct.Struct("ii")  # process id, status as of waitpid
PROGRAM = "from cluster import fork_server; fork_server.serve({}, {})"


class ForkServer:
    """The server, seen from the process that starts it."""

    def __init__(self, environment: Mapping[str, str], output: Path, modules: Sequence[str]) -> None:
        """Start it with this environment. It imports `modules`, so that its processes have them.

        What it prints, and what its processes print, is appended to `output`.
        """
        self._control, theirs = socket.socketpair()
        with theirs, output.open("ab") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(theirs.fileno(), list(modules))],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,  # Ctrl-C reaches the driver alone, which stops steps in order
            )

    def fork(self) -> Connection:
        """Fork a process. Returns the connection to it: see `cluster.forked_process`. Raises OSError if it is gone."""
        ours, theirs = Pipe()
        with theirs:
            try:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def fileno(self) -> int:
        """A file descriptor from which can be read when a process has ended."""
        return self._control.fileno()

    def exits(self) -> Iterator[tuple[int, int]]:
        """The processes that have ended since the last call: process id and exit code, negative for a signal."""
        while select.select([self._control], [], [], 0)[0]:
            message = self._control.recv(EXIT.size, socket.MSG_WAITALL)
            if len(message) < EXIT.size:
                return
            process, status = EXIT.unpack(message)
            yield process, os.waitstatus_to_exitcode(status)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, and the processes that still run."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def serve(control_descriptor: int, modules: Sequence[str]) -> None:
    """Fork processes until the other end is closed. The main function of the server."""
    for module in modules:
        importlib.import_module(module)  # noqa: TID251  the contracts see it where the name is given
    gc.collect()
    gc.freeze()  # memory that the processes share stays shared
    control = socket.socket(fileno=control_descriptor)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(ended, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready = select.select([control.fileno(), ended], [], [])[0]
        if ended in ready:
            os.read(ended, 4096)
            for process, status in _reaped():
                control.sendall(EXIT.pack(process, status))
        if control.fileno() in ready:
            order, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not order:
                os._exit(0)
            if os.fork() == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (control.detach(), ended, wake):
                    os.close(descriptor)
                forked_process.run(Connection(descriptors[0]))
            os.close(descriptors[0])


def _reaped() -> Iterator[tuple[int, int]]:
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not process:
            return
        yield process, status
