"""Serving without Ray: the application runs under uvicorn in a child process, on a port of this machine.

The child reads its application from standard input and serves until that is closed, which happens when its parent asks
it to stop and also when its parent dies. It then finishes the requests in flight, and answers new ones with a 503.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import http_limits
from cluster.asgi import Gate, check_factory, create_application
from cluster.config import HttpLimits
from cluster.import_path import python_path
from cluster.network import LOOPBACK, free_port, wait_until_answers
from cluster.serve_port import expect_free
from stages.base import Application, StageError
from stages.child_environment import child_environment

START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 10  # for a drained server to end


@dataclass
class ServedProcess:
    """An application served by a child process."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    drain_timeout_s: float

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(self.drain_timeout_s + END_TIMEOUT_S)
        except BaseException as error:  # it takes too long, or Ctrl-C was pressed once more
            self.process.kill()
            self.process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        if self.process.returncode == 0:
            self.log_file.unlink(missing_ok=True)

    def log(self) -> str:
        tail = self.log_file.read_bytes()[-2000:].decode(errors="replace").strip()
        return f"Its log, {self.log_file}, ends with:\n{tail}" if tail else f"Its log, {self.log_file}, is empty."


def start(application: Application, limits: HttpLimits | None = None, port: int | None = None) -> ServedProcess:
    """Serve an application and return once it answers. Runs one replica. `port`: None stands for a free one.

    Raises StageError if it can't be served.
    """
    check_factory(application.factory)
    if port is not None:
        expect_free(port)
    port = port or free_port()
    descriptor, log_file = tempfile.mkstemp(prefix="bloomline-server-", suffix=".log")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.inline_serve", str(port)],  # -P: not a user's cluster.py
        stdin=subprocess.PIPE,
        stdout=descriptor,
        stderr=descriptor,
        env=child_environment({"PYTHONPATH": python_path(), **http_limits.environment(limits or HttpLimits())}),
        start_new_session=True,  # Ctrl-C in the terminal then reaches the parent only
    )
    os.close(descriptor)
    served = ServedProcess(f"http://{LOOPBACK}:{port}", process, Path(log_file), application.drain_timeout_s)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(application), default=dict).encode() + b"\n")
        process.stdin.flush()
        if wait_until_answers(served.url, served.running, START_TIMEOUT_S):
            return served
        raise StageError(
            f"The server of {application.name!r} did not answer GET {served.url}/health with a status below 500. "
            + served.log()
        )
    except BaseException:
        process.kill()
        served.stop()
        raise


def main(port: int) -> None:
    """Serve the application that the first line of standard input describes, until standard input is closed."""
    import uvicorn

    from cluster.http_protocol import BoundedProtocol

    application = json.loads(sys.stdin.buffer.readline())
    gate = Gate(create_application(application["factory"], application["arguments"]))
    config = uvicorn.Config(
        http_limits.HeaderChecks(gate),
        host=LOOPBACK,
        port=port,
        http=BoundedProtocol,
        log_level="warning",
        timeout_graceful_shutdown=1,  # what is still running once the drain has taken too long is ended
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        sys.stdin.buffer.read()
        gate.closed = True
        deadline = time.monotonic() + application["drain_timeout_s"]
        while gate.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        server.should_exit = True

    threading.Thread(target=watch, name="parent", daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
