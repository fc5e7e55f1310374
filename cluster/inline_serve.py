"""Serving without Ray: the application runs under uvicorn in a child process, on a free port of this machine.

The child reads its application from standard input and serves until that is closed, which happens when its parent asks
it to stop and also when its parent dies. It then finishes the requests in flight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from typing import IO

from cluster.asgi import check_factory, create_application
from cluster.import_path import python_path
from cluster.network import LOOPBACK, free_port, wait_until_answers
from stages.base import Application, StageError

START_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 30


@dataclass
class ServedProcess:
    """An application served by a child process."""

    url: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(DRAIN_TIMEOUT_S + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def log_tail(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:].strip()


def start(application: Application) -> ServedProcess:
    """Serve an application and return once it answers. Runs one replica. Raises StageError if it can't be served."""
    check_factory(application.factory)
    port = free_port()
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.inline_serve", str(port)],  # -P: not a user's cluster.py
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=os.environ | {"PYTHONPATH": python_path()},
        start_new_session=True,  # Ctrl-C in the terminal then reaches the parent only
    )
    served = ServedProcess(f"http://{LOOPBACK}:{port}", process, log)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(application), default=dict).encode() + b"\n")
        process.stdin.flush()
        if wait_until_answers(served.url, served.running, START_TIMEOUT_S):
            return served
        raise StageError(
            f"The server of {application.name!r} did not answer GET {served.url}/health with a status below 500. "
            f"Its log ends with:\n{served.log_tail()}"
        )
    except BaseException:
        process.kill()
        served.stop()
        raise


def main(port: int) -> None:
    """Serve the application that the first line of standard input describes, until standard input is closed."""
    import uvicorn

    application = json.loads(sys.stdin.buffer.readline())
    app = create_application(application["factory"], application["arguments"])
    config = uvicorn.Config(
        app, host=LOOPBACK, port=port, log_level="warning", timeout_graceful_shutdown=DRAIN_TIMEOUT_S
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=watch, name="parent", daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
