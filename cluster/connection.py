"""Starts or joins a Ray cluster, and leaves it.

A local cluster starts in the background, so that the driver can do other work during the seconds that it takes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray.job_config import JobConfig

from cluster import http_limits, process_setup, serve_proxy, stop_signals
from cluster.base import ClusterError, Node
from cluster.config import LocalCluster, RemoteCluster
from cluster.head_token import SET_TOKEN, expect_accepted
from cluster.import_path import copy_modules, python_path
from cluster.machine import this_machine
from cluster.network import expect_listener
from cluster.ray_nodes import nodes
from cluster.submitted_job import in_submitted_job, reserved_cpus
from cluster.temporary_directory import TemporaryDirectory
from stages.addresses import redact_url
from stages.child_environment import DRIVER_ONLY

PROBE_EVERY_S = 2.0
DEATH_TIMEOUT_S = 5.0
# A head that is silent for this long is lost: its process on this machine, or its machine, which an interrupted network
# only hides. After 60 s Ray ends this process without an error.
LOCAL_HEAD_TIMEOUT_S, REMOTE_HEAD_TIMEOUT_S = 12.0, 45.0
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0", on any system: see _loopback_only
START_TRIES = 2  # Ray gives its own processes 15 to 30 s to answer, however busy the machine is
MISCONFIGURED = (ValueError, TypeError)  # what Ray raises for arguments that it does not accept
QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


class Connection:
    """This process's connection to a Ray cluster. A process has one at a time; an existing one is shared."""

    def __init__(self, config: LocalCluster | RemoteCluster, packages: Sequence[Path] = ()) -> None:
        """Start or join the cluster. Its processes can import `packages`. Raises ClusterError if joining fails."""
        self._config = config
        self._error: Exception | None = None
        self._connected = threading.Event()
        self._closing = threading.Event()
        by_address = isinstance(config, RemoteCluster) and config.address != "auto"
        self._owned = by_address or not ray.is_initialized()
        self._directory: TemporaryDirectory | None = None
        self._nodes: list[Node] = []  # the last known ones of a remote cluster
        self._probed = self._answered = time.monotonic()
        self._unrelated: set[psutil.Process] = set()  # descendants of this process that are older than the cluster
        if not self._owned:
            self._connected.set()
        elif isinstance(config, LocalCluster):
            self._directory = TemporaryDirectory()
            process_setup.adopt_orphans()
            self._unrelated = _descendants()
            # Ray has the kernel kill its processes when the thread that started them ends (PR_SET_PDEATHSIG), so that
            # a killed driver leaves none behind. That thread must therefore stay alive. As it is not the main thread,
            # Ray leaves the handler of SIGTERM to us.
            arguments = (config, self._directory.ray, python_path(packages))
            threading.Thread(target=self._start_and_hold, args=arguments, name="ray", daemon=True).start()
        else:
            _join(config, packages)
            self._connected.set()

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the cluster, without what is reserved for this driver. Does not wait for a starting cluster.

        While the head does not answer, they are those that it had.
        """
        if self._owned and isinstance(self._config, LocalCluster):
            return [this_machine(self._config)]
        if not self._nodes or self.head_answers():
            gpu_memory_bytes = self._config.gpu_memory_bytes or 0
            self._nodes = [replace(node, gpu_memory_bytes=gpu_memory_bytes) for node in nodes(reserved_cpus())]
        return self._nodes

    @property
    def can_grow(self) -> bool:
        """Whether nodes may join, so that waiting for resources that no node has can succeed."""
        return isinstance(self._config, RemoteCluster)

    @property
    def logs(self) -> Path | None:
        """Where the processes of a cluster that was started here write their logs."""
        return self._directory.ray / "session_latest" / "logs" if self._directory else None

    def wait(self) -> None:
        """Return once the cluster is running. Raises ClusterError if it could not be started."""
        self._connected.wait()
        if self._error:
            raise ClusterError(
                f"Ray could not be started on this machine: {self._error} Run the same command again when the machine "
                "is less busy; a small run needs no Ray with cluster=inline."
            ) from self._error
        _restore_signal_handlers()

    def head_is_lost(self) -> bool:
        """Whether the head of the cluster has stopped answering. Probes it every few seconds only."""
        now = time.monotonic()
        if now - self._probed >= PROBE_EVERY_S:
            self._probed = now
            self.head_answers()
        return now - self._answered > self._head_timeout_s

    @property
    def _head_timeout_s(self) -> float:
        return REMOTE_HEAD_TIMEOUT_S if isinstance(self._config, RemoteCluster) else LOCAL_HEAD_TIMEOUT_S

    def head_answers(self) -> bool:
        """Whether the head accepts a connection now.

        Check this before a call to the head: a call to a lost one does not return, and after a minute Ray ends this
        process.
        """
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE_EVERY_S).close()
        except OSError as error:
            if self._directory and isinstance(error, ConnectionRefusedError):
                self._answered = -LOCAL_HEAD_TIMEOUT_S  # it was a process of this machine, which nothing will restart
            return False
        self._answered = time.monotonic()
        return True

    def abandon(self) -> None:
        """Leave a cluster whose head is lost: Ray's own shutdown would wait for it. Ends what was started here."""
        self._closing.set()
        atexit.unregister(ray.shutdown)
        self._end_processes()

    def close(self, keep_logs: bool = False) -> None:
        """Leave the cluster, and stop it if it was started here. `keep_logs` keeps the logs of a stopped cluster."""
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

    def _end_processes(self, of: Path | None = None) -> None:
        """End every process of a cluster that was started here, including those that lost their parent.

        `of`: only those whose command line names that directory. Steps that need no Ray may be running already.
        """
        deadline = time.monotonic() + DEATH_TIMEOUT_S
        while self._directory and time.monotonic() < deadline:
            ours = {one for one in _descendants() - self._unrelated if of is None or _names(one, of)}
            if not ours:
                return
            for one in ours:
                with contextlib.suppress(psutil.Error):
                    one.kill()  # psutil makes sure that the id was not reused
            psutil.wait_procs(list(ours), timeout=DEATH_TIMEOUT_S)  # the next round ends what they started meanwhile

    def _start_and_hold(self, config: LocalCluster, directory: Path, path: str) -> None:
        stop_signals.keep_hangup_from_children()
        for tries in range(1, START_TRIES + 1):
            self._error = self._start(config, directory, path)
            if tries == START_TRIES or self._error is None or isinstance(self._error, MISCONFIGURED):
                break
            self._end_processes(directory)
        self._connected.set()
        self._closing.wait()

    @staticmethod
    def _start(config: LocalCluster, directory: Path, path: str) -> Exception | None:
        """Start Ray in a directory. Returns why it could not be started."""
        try:
            with _environment(_local_environment(path, config)), _loopback_only():
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
                    job_config=_JobConfig(),
                    **QUIET,
                )
        except Exception as error:
            return error
        return None


class _JobConfig(JobConfig):
    """Keeps the driver's directories off the import path of the workers.

    Ray puts the working directory and the script's directory before everything else on that path, unless the job has
    its own working directory. A user's folder `stages/` would hide ours there.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _join(config: RemoteCluster, packages: Sequence[Path]) -> None:
    if config.address.startswith("http"):
        raise ClusterError(
            f"cluster.address={redact_url(config.address)} is the address of a dashboard, which accepts jobs only: use "
            "`bloomline submit` with it, or run on a node of the cluster with cluster.address=auto."
        )
    if config.address != "auto":
        host, _, port = config.address.rpartition(":")
        expected = "the address of a Ray head, usually HOST:6379"
        expect_listener(config.address, host.strip("[]"), int(port), config.connect_timeout_s, expected)
        expect_accepted(config.address, config.connect_timeout_s)
    try:
        with tempfile.TemporaryDirectory() as directory:
            copies = [] if in_submitted_job() else copy_modules(packages, Path(directory))
            ray.init(
                address=config.address,
                runtime_env=_runtime_env(config, copies) if copies else None,
                job_config=_JobConfig(),
                **QUIET,
            )
    except ray.exceptions.AuthenticationError as error:
        where = redact_url(config.address)
        raise ClusterError(f"The Ray cluster at {where} rejected the token, or none was sent. {SET_TOKEN}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        if config.address == "auto" and isinstance(error, ConnectionError):
            raise ClusterError(
                "cluster.address=auto: no Ray cluster runs on this machine. Start one (`ray start --head`), or set "
                "cluster.address=HOST:6379, or send the run to one: bloomline submit with cluster.address=http://HOST:8265"
            ) from error
        where = "on this machine" if config.address == "auto" else f"at {redact_url(config.address)}"
        raise ClusterError(f"No Ray cluster could be joined {where}: {error}") from error


def _runtime_env(config: RemoteCluster, copies: Sequence[Path]) -> dict[str, Any]:
    """The configured runtime environment with our packages. A job has its own, which its processes inherit."""
    return {
        **config.runtime_env,
        "py_modules": [*map(str, copies), *config.runtime_env.get("py_modules", ())],
        "env_vars": {"PYTHONSAFEPATH": "1", **config.runtime_env.get("env_vars", {})},
    }


def _names(process: psutil.Process, directory: Path) -> bool:
    """Whether the command line of a process names a directory."""
    try:
        return any(str(directory) in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _restore_signal_handlers() -> None:
    """Replace the signal handlers of Ray's core, which print a trace and abort, with Python's."""
    if threading.current_thread() is threading.main_thread():
        for number in stop_signals.STOP_SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _local_environment(path: str, config: LocalCluster) -> dict[str, str | None]:
    """What the processes of a local cluster inherit."""
    return {
        "PYTHONPATH": path,
        **serve_proxy.ENVIRONMENT,
        **http_limits.environment(config.http),
        "PYTHONSAFEPATH": os.environ.get("PYTHONSAFEPATH", "1"),  # no imports from the working directory
        LOOPBACK_ONLY: "0",
        # Metrics have no authentication, and nothing reads them. Ray has no switch for the last two ports: a number
        # that is not one of a port leaves them closed.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        # Only this process knows the token: no other user of the machine can run code in the cluster, and no file in
        # HOME is needed. Ray turns token authentication on, and reads its settings again, only if no mode is set.
        "RAY_AUTH_MODE": None,
        "RAY_AUTH_TOKEN": _token(),
        **dict.fromkeys(DRIVER_ONLY),
    }


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make Ray use the loopback address for the node that this process starts; its processes then listen there alone.

    Ray replaces that address by one that other machines can reach, wherever it is configured, unless clusters are
    switched off. The variable says so to the processes of the node. In this process Ray read it when it was imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@functools.cache
def _token() -> str:
    return secrets.token_hex(32)  # one per process: Ray reads it once


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for a while, or unset those that are None.

    Other threads see the change too. Who must not holds ENVIRONMENT_LOCK.
    """
    with process_setup.ENVIRONMENT_LOCK:
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
