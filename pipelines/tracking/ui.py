"""MLflow's own web interface, which `bloomline ui` starts on the right store, on this machine only, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from cluster import stop_signals
from cluster.network import LOOPBACK, wait_until_answers
from cluster.terminal_text import clean
from pipelines.errors import BloomlineError
from pipelines.tracking.database import ARTIFACTS, DatabaseError
from pipelines.tracking.leftovers import flush
from pipelines.tracking.tracking_config import TrackingConfig
from stages.child_environment import child_environment

PORT = 5000
STOP_TIMEOUT_S = 10.0
START_TIMEOUT_S = 600.0
FOREIGN_ADVICE = "Security middleware enabled with default settings"  # the line goes on to options that only MLflow has


def serve_ui(config: TrackingConfig, root: Path, port: int = 0, say: Callable[[str], None] = print) -> int:
    """Serve the interface on loopback until SIGINT, SIGTERM or SIGHUP, and return the exit code.

    `port` 0: 5000, or any that is free. The address is printed once MLflow answers there; for `kind: server` that is
    all. The entries of earlier runs are sent first. Raises BloomlineError for a server that does not answer, and for a
    local database that this MLflow can't use.
    """
    if find_spec("mlflow") is None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    from pipelines.tracking.mlflow_connection import Connection
    from pipelines.tracking.mlflow_trouble import server_trouble

    if config.kind == "server" and (trouble := server_trouble(config, root)):
        raise BloomlineError(trouble)
    for note in flush(config, root):
        say(note)
    if config.kind == "server":
        say(f"MLflow: {config.shown(root)}")
        return 0
    try:
        Connection(config, root)  # migrates the database, and finds the artifacts of a store that was moved
    except DatabaseError as error:
        raise BloomlineError(str(error)) from error
    port = port or free_port(PORT)
    address = f"http://{LOOPBACK}:{port}"
    # MLflow's web server imports from its working directory first, which is therefore an empty one.
    # In a separate process group Ctrl-C reaches only this process, and the server's workers end with their parent.
    with tempfile.TemporaryDirectory(prefix="bloomline-ui-") as directory:
        command = _command(config, root, port)
        quiet = subprocess.DEVNULL  # what goes wrong is on standard error
        server = subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(),
            stdout=quiet,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        said = threading.Thread(target=_pass_on, args=(server.stderr,), name="mlflow-errors", daemon=True)
        said.start()
        with stop_signals.handled(_stop):
            try:
                if wait_until_answers(address, lambda: server.poll() is None, START_TIMEOUT_S):
                    say(f"MLflow: {address}  (Ctrl-C ends it)")
                return server.wait()
            except KeyboardInterrupt:
                return 0
            finally:
                _end(server)
                said.join(STOP_TIMEOUT_S)  # bounded: a process that outlives the server may hold the pipe open


def free_port(preferred: int) -> int:
    """`preferred` if nothing on this machine listens there, else a port that the system gives."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on the loopback interface")


def _command(config: TrackingConfig, root: Path, port: int) -> list[str]:
    uri = config.tracking_uri(root)
    store = ["--backend-store-uri", uri, "--default-artifact-root", (root.absolute() / ARTIFACTS).as_uri()]
    return [
        sys.executable,
        "-P",  # modules of the working directory must not hide MLflow's
        "-m",
        "mlflow",
        "server",
        *store,
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def _environment() -> dict[str, str]:
    """Quiet, and without processes for background jobs, so that it starts sooner."""
    ours = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "ignore",
        "UVICORN_LOG_LEVEL": "warning",
    }
    return ours | child_environment()


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end what is within, in order and without an error."""
    with stop_signals.handled(_stop), contextlib.suppress(KeyboardInterrupt):
        yield


def _pass_on(lines: IO[str]) -> None:
    """What MLflow says on standard error, without advice about options that are not ours."""
    with lines:
        for line in lines:
            if FOREIGN_ADVICE in line:
                continue
            print(clean(line.rstrip("\n")), file=sys.stderr, flush=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[str]) -> None:
    """End the server and every worker of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_TIMEOUT_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
