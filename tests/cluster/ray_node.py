"""Starts nodes of a Ray cluster, with token authentication and without an installation of this project."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.network import free_port
from tests.cluster.support import gone
from tests.cluster.test_driver_death import descendants

TOKEN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Head:
    """The addresses of a Ray head, and the Python that its jobs and workers run."""

    dashboard: str
    gcs: str
    python: str


@contextmanager
def ray_head(home: Path) -> Iterator[Head]:
    """A head with two CPUs that requires TOKEN."""
    python = python_without_installation(home / "venv")
    gcs, dashboard, client = (free_port() for _ in range(3))
    options = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    options += ["--dashboard-host=127.0.0.1", "--include-dashboard=true", "--num-cpus=2"]
    with ray_node(home, "h", options, python):
        yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", python)


@contextmanager
def ray_node(
    home: Path,
    name: str,
    options: Sequence[str],
    python: str,
    prefix: Sequence[str] = (),
    temporary: Path | None = None,
) -> Iterator[None]:
    """A node that `ray start` starts with `python`, behind the words of `prefix`. All its processes end with it.

    `temporary` is Ray's directory, which is removed at the end unless it is given.
    """
    own = Path(f"/tmp/bl-{os.getpid()}{name}")  # short: Ray creates Unix sockets below it
    command = [*prefix, python, "-m", "ray.scripts.scripts", "start", "--block", *options, "--disable-usage-stats"]
    command += [f"--object-store-memory={100 << 20}", f"--dashboard-agent-listen-port={free_port()}"]
    if "--head" in options:
        command.append(f"--temp-dir={temporary or own}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(home)}
    environment["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    log = home / "node.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        assert _started(log, process), log.read_text()
        yield
    finally:
        started = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        gone(started, 5)
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(own, ignore_errors=True)


def python_without_installation(directory: Path) -> str:
    """A Python that has our dependencies, but can't import this project."""
    venv.create(directory)
    python = str(directory / "bin" / "python")
    packages = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    # Python ignores the .pth files of a directory that is added by a .pth file: an editable install is one of them.
    site = next(directory.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys(packages)))
    imported = subprocess.run([python, "-c", "import ray, cluster"], cwd=directory, capture_output=True, text=True)
    assert "No module named 'cluster'" in imported.stderr, imported.stderr or "this project is not an editable install"
    return python


def _started(log: Path, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(480):
        if "Ray runtime started" in log.read_text():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.25)
    return False
