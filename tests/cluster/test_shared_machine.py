"""What other users of the machine, and other machines, can reach of the Ray that a run starts."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.base import Gang, Launcher, Send
from cluster.ray_executor import RayExecutor
from stages.base import Application, Rank, Resources
from tests.cluster.support import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

APPLICATION = Application(
    "greeter", "tests.cluster.applications:create", {"greeting": "hello"}, resources=Resources(cpus=0)
)
STRANGER = 65534  # a user id that owns nothing here
LOOK = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for path in sys.argv[2:]:
    attempts = [os.listdir, os.stat, os.unlink]
    if len(path) < 108:
        attempts.append(lambda path: socket.socket(socket.AF_UNIX).connect(path))
    for attempt in attempts:
        try:
            attempt(path)
        except PermissionError:
            continue
        except OSError as error:
            sys.exit(f"{path}: {error}")
        sys.exit(f"{path} was reached")
"""


def directory(session: RayExecutor) -> Path:
    """Ray's own directory."""
    assert session._connection.logs
    return session._connection.logs.parents[1]


def inside(path: Path) -> list[Path]:
    return [path, *(Path(parent, name) for parent, folders, files in os.walk(path) for name in [*folders, *files])]


def test_only_this_user_can_enter_the_directory_that_holds_sockets_and_logs(ray_session: RayExecutor) -> None:
    ray = directory(ray_session)
    found = inside(ray)
    assert {path.name for path in found if path.is_socket()} >= {"raylet", "plasma_store"}
    assert any(path.suffix == ".log" for path in found)
    closed = ray.parent.stat()
    assert stat.S_IMODE(closed.st_mode) == 0o700
    assert closed.st_uid == os.geteuid()
    for above in ray.parent.resolve().parents:  # nobody else can put another directory in its place
        mode = above.stat().st_mode
        assert not mode & stat.S_IWOTH or mode & stat.S_ISVTX, above


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reaches_neither_sockets_nor_logs(ray_session: RayExecutor) -> None:
    paths = [str(path) for path in inside(directory(ray_session)) if not path.is_symlink()]
    command = [sys.executable, "-P", "-S", "-c", LOOK, str(STRANGER), *paths]
    looked = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert looked.returncode == 0, looked.stderr


def test_what_ray_shares_in_memory_has_no_name_or_is_closed() -> None:
    for path in Path("/dev/shm").glob("plasma*"):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def listening(process: psutil.Process) -> list[tuple[str, str]]:
    """Name of the process and address of each socket that others could send to."""
    try:
        sockets = process.net_connections("inet")
        waiting = [one for one in sockets if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM)]
        return [(process.name(), one.laddr.ip) for one in waiting if one.laddr and not one.raddr]
    except psutil.NoSuchProcess:
        return []


def connect(driver: int, rank: Rank) -> list[tuple[str, str]]:
    from stages.parallel.process_group import process_group

    with process_group(rank, timeout_s=60):
        tree = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
        return [found for process in tree for found in listening(process)]


def serve_and_start_gang(driver: int, launcher: Launcher, send: Send) -> Any:
    served = launcher.serve(APPLICATION)
    try:
        return launcher.gang("step", Gang(partial(connect, driver), ranks=2), send)
    finally:
        served.stop()


def test_no_process_of_a_run_listens_for_other_machines(ray_session: RayExecutor) -> None:
    ended, _ = run(ray_session, partial(serve_and_start_gang, os.getpid()))
    assert ended.state == "done", ended.error + ended.trace
    found = [one for rank in ended.result for one in rank]
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    assert any("ServeReplica" in name or "ProxyActor" in name for name, _ in found)
    assert [one for one in found if not ipaddress.ip_address(one[1].removeprefix("::ffff:")).is_loopback] == []
