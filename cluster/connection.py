"""Starts or joins a Ray cluster, and leaves it.

A local cluster starts in the background, so that the driver can do other things for the seconds that it takes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray

from cluster import process
from cluster.base import ClusterError, Node
from cluster.config import LocalCluster, RemoteCluster, this_machine
from cluster.reach import probe
from cluster.temporary import TemporaryDirectory
from stages.base import Resources

PROBE_EVERY_S = 2.0
DEATH_TIMEOUT_S = 5.0
HEAD_TIMEOUT_S = 12.0  # a head that does not answer for this long is gone; after 60 s Ray ends this process unsaid
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job, with the job's metadata
ENTRYPOINT_CPUS = "entrypoint_cpus"  # in a job's metadata: how many CPUs of the driver's node are set aside for it
QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


class Connection:
    """This process's tie to a Ray cluster. One at a time in a process; one that is there already is shared."""

    def __init__(self, config: LocalCluster | RemoteCluster) -> None:
        self._config = config
        self._error: Exception | None = None
        self._connected = threading.Event()
        self._closing = threading.Event()
        elsewhere = isinstance(config, RemoteCluster) and config.address != "auto"
        self._owned = elsewhere or not ray.is_initialized()
        self._directory: TemporaryDirectory | None = None
        self._probed = self._answered = time.monotonic()
        self._others: set[psutil.Process] = set()  # processes that this one had started before the cluster
        if not self._owned:
            self._connected.set()
        elif isinstance(config, LocalCluster):
            self._directory = TemporaryDirectory()
            process.adopt_orphans()
            self._others = _descendants()
            # Ray asks the kernel to end its processes with the thread that started them (PR_SET_PDEATHSIG): so that a
            # killed driver leaves none behind, and the thread must stay. As it is not the main thread, Ray leaves the
            # handler of SIGTERM to us.
            threading.Thread(target=self._live, args=(config, self._directory.path), name="ray", daemon=True).start()
        else:
            _join(config)
            self._connected.set()

    @property
    def nodes(self) -> list[Node]:
        """The machines of the cluster, without what is set aside for this driver. Does not wait for one that is being
        started."""
        if self._owned and isinstance(self._config, LocalCluster):
            return [this_machine(self._config)]
        of_gpus = self._config.gpu_memory_bytes or 0
        return [replace(node, gpu_memory_bytes=of_gpus) for node in nodes(_set_aside_cpus())]

    @property
    def can_grow(self) -> bool:
        """Whether nodes may join, so that it makes sense to wait for room that is not there."""
        return isinstance(self._config, RemoteCluster)

    def wait(self) -> None:
        """Return once the cluster is up. Raises ClusterError if it did not come up."""
        self._connected.wait()
        if self._error:
            raise ClusterError(f"Ray could not be started on this machine: {self._error}") from self._error
        _take_signals_back()

    def head_is_lost(self) -> bool:
        """Whether the head of the cluster has stopped answering. Looks every few seconds only."""
        now = time.monotonic()
        if now - self._probed >= PROBE_EVERY_S:
            self._probed = now
            self.head_answers()
        return now - self._answered > HEAD_TIMEOUT_S

    def head_answers(self) -> bool:
        """Whether the head takes a connection just now. To be asked before a call to it: one to a head that is gone
        does not return, and after a minute Ray ends this process."""
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE_EVERY_S).close()
        except OSError as error:
            if self._directory and isinstance(error, ConnectionRefusedError):
                self._answered = -HEAD_TIMEOUT_S  # it was a process of this machine, and nobody would start it anew
            return False
        self._answered = time.monotonic()
        return True

    def abandon(self) -> None:
        """Leave a cluster whose head is gone: Ray's own goodbye would wait for it. Ends what was started here."""
        self._closing.set()
        atexit.unregister(ray.shutdown)
        self._end_processes()

    def _end_processes(self) -> None:
        """End every process of a cluster that was started here, also those that have lost their parent."""
        deadline = time.monotonic() + DEATH_TIMEOUT_S
        while self._directory and (ours := _descendants() - self._others) and time.monotonic() < deadline:
            for one in ours:
                with contextlib.suppress(psutil.Error):
                    one.kill()  # psutil makes sure that it is still the same process
            psutil.wait_procs(list(ours), timeout=DEATH_TIMEOUT_S)  # what one of them started meanwhile is next

    def close(self, keep_logs: bool = False) -> None:
        """Leave the cluster, and end it if it was started here. Its logs stay if they are worth a look."""
        if self._closing.is_set():
            return
        self._connected.wait()
        if self._error:
            self._end_processes()
        elif self._owned and not self.head_answers():
            self.abandon()
        elif self._owned:
            ray.shutdown(wait_for_processes=True)
        self._closing.set()
        if self._directory and not keep_logs:
            self._directory.remove()

    @property
    def logs(self) -> Path | None:
        """Where the processes of a cluster that was started here write their logs."""
        return self._directory.path / "session_latest" / "logs" if self._directory else None

    def _live(self, config: LocalCluster, directory: Path) -> None:
        try:
            with _environment(_local_environment()):
                node = this_machine(config)
                ray.init(
                    address="local",
                    num_cpus=int(node.cpus),
                    num_gpus=int(node.gpus),
                    resources=dict(node.custom) or None,
                    _memory=node.memory_bytes,
                    object_store_memory=config.object_store_bytes,
                    include_dashboard=False,
                    _temp_dir=str(directory),
                    **QUIET,
                )
        except Exception as error:
            self._error = error
        self._connected.set()
        self._closing.wait()


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def nodes(without_cpus: float = 0) -> list[Node]:
    """The machines of the cluster that this process is in, with all that they have but `without_cpus` of its own."""
    found = []
    here = ray.get_runtime_context().get_node_id()
    for entry in ray.nodes():  # type: ignore[no-untyped-call]
        if entry["Alive"]:
            node = _node(entry["Resources"])
            own = entry["NodeID"] == here
            found.append(replace(node, cpus=max(node.cpus - without_cpus, 0)) if own else node)
    return found


def _set_aside_cpus() -> float:
    job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return float(job.get("metadata", {}).get(ENTRYPOINT_CPUS, 0))


def free() -> Resources:
    """What nobody uses in the cluster that this process is in, all nodes together."""
    node = _node(ray.available_resources())  # type: ignore[no-untyped-call]
    return Resources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes, custom=node.custom)


def _take_signals_back() -> None:
    """Put Python's handlers back in place of those with which Ray's core prints a trace and aborts."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _join(config: RemoteCluster) -> None:
    if config.address.startswith("http"):
        raise ClusterError(
            f"cluster.address={config.address} is that of a dashboard, which takes jobs: use `bloomline submit` with "
            "it, or run on a node of the cluster with cluster.address=auto."
        )
    if config.address != "auto":
        host, _, port = config.address.rpartition(":")
        expected = "the address of a Ray head, usually HOST:6379"
        probe(config.address, host.strip("[]"), int(port), config.connect_timeout_s, expected)
    try:
        ray.init(address=config.address, runtime_env=_code(), **QUIET)
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(f"The Ray cluster at {config.address} refused our token. {error}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if config.address == "auto" else f"at {config.address}"
        raise ClusterError(f"No Ray cluster could be joined {where}: {error}") from error


def _code() -> dict[str, Any] | None:
    """The runtime environment that brings our packages to the workers. A submitted job has them already."""
    if JOB_CONFIG in os.environ:
        return None
    root = Path(__file__).parents[1]
    return {"py_modules": [str(root / name) for name in ("cluster", "stages", "pipelines")]}


def _local_environment() -> dict[str, str | None]:
    """What the processes of a local cluster inherit."""
    here = [path or os.getcwd() for path in sys.path]
    ours = [path for path in here if not Path(path).is_relative_to(sys.base_prefix)]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(ours)),
        # A token of this process alone: nobody else on the machine can run code here, and no file in HOME is needed.
        # Without a mode, Ray turns token authentication on, and reads its own settings anew; with one it does not.
        "RAY_AUTH_MODE": None,
        "RAY_AUTH_TOKEN": _token(),
    }


@functools.cache
def _token() -> str:
    return secrets.token_hex(32)  # one a process: Ray reads it once


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set, or unset, environment variables for a while. Other threads see it too."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _node(resources: Mapping[str, float]) -> Node:
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    custom = {
        name: amount
        for name, amount in resources.items()
        if name not in known and not name.startswith(("node:", "accelerator_type:", "bundle_"))
    }
    return Node(
        cpus=resources.get("CPU", 0),
        gpus=resources.get("GPU", 0),
        memory_bytes=int(resources.get("memory", 0)),
        custom=custom,
    )
