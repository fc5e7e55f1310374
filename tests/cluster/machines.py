"""Machines that can be cut off: network namespaces on this machine, connected by a bridge.

Each has an address, a host name that its /etc/hosts maps to 127.0.1.1, as Debian does, and its own directory for
Ray. They share all other files. Needs root and the command `ip`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.import_path import ROOT
from tests.cluster.ray_node import TOKEN, python_without_installation, ray_node

GCS, DASHBOARD = 6379, 8265
# Mounts, and sets what only this machine has, then becomes the command.
ENTER = """
hostname "$1" && mount --bind "$2/hosts" /etc/hosts && mount --bind "$2/ray" "$3" && shift 3 && exec "$@"
"""


def _works() -> bool:
    """Whether a namespace can be made here."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    return not subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True).returncode


needs_machines = pytest.mark.skipif(not _works(), reason="network namespaces need root, `ip` and `unshare`")


@dataclass(frozen=True)
class Machine:
    """One machine, as long as `machines` runs."""

    name: str
    address: str
    home: Path
    ray_directory: Path
    namespace: str
    hub: str  # the namespace of the bridge

    def prefix(self) -> list[str]:
        """What runs a command on the machine, when it is put before the command."""
        enter = ["unshare", "--mount", "--uts", "sh", "-c", ENTER, "sh"]
        return ["ip", "netns", "exec", self.namespace, *enter, self.name, str(self.home), str(self.ray_directory)]

    def start(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[str]:
        """Start a command on the machine, with the cluster's token. Its output and errors are one pipe."""
        inherited = {"PATH": os.environ["PATH"], "HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        inherited |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*self.prefix(), *command],
            cwd=directory,
            env={**inherited, **environment},
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: Sequence[str], directory: Path, environment: Mapping[str, str] = {}) -> tuple[int, str]:
        """The exit code and the output of a command on the machine."""
        with self.start(command, directory, environment) as process:
            output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def cut(self) -> None:
        """Take the machine off the network."""
        _ip(self.hub, "link", "set", f"to-{self.name}", "down")

    def mend(self) -> None:
        """Connect the machine again."""
        _ip(self.hub, "link", "set", f"to-{self.name}", "up")


@contextmanager
def machines(home: Path, count: int) -> Iterator[list[Machine]]:
    """Machines named m0, m1, ... with the addresses 10.77.0.10, 10.77.0.11, ..."""
    tag = f"bl{os.getpid()}"
    hub = f"{tag}-hub"
    ray_directory = Path(f"/tmp/{tag}")
    ray_directory.mkdir()
    made = []
    try:
        subprocess.run(["ip", "netns", "add", hub], check=True)
        _ip(hub, "link", "add", "bridge", "type", "bridge")
        _ip(hub, "link", "set", "bridge", "up")
        for index in range(count):
            name = f"m{index}"
            machine = Machine(name, f"10.77.0.{10 + index}", home / name, ray_directory, f"{tag}-{name}", hub)
            made.append(machine)
            (machine.home / "ray").mkdir(parents=True)
            (machine.home / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
            subprocess.run(["ip", "netns", "add", machine.namespace], check=True)
            _ip(hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "net0", "netns", machine.namespace)
            _ip(hub, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip(machine.namespace, "link", "set", "lo", "up")
            _ip(machine.namespace, "addr", "add", f"{machine.address}/24", "dev", "net0")
            _ip(machine.namespace, "link", "set", "net0", "up")
        yield made
    finally:
        for namespace in [*(machine.namespace for machine in made), hub]:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        shutil.rmtree(ray_directory, ignore_errors=True)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster whose nodes are machines and have no installation of this project. The first is its head."""

    machines: list[Machine]
    nodes: list[ExitStack]  # closing one ends that node
    python: str  # of the nodes
    directory: Path  # a folder that all machines share

    @property
    def address(self) -> str:
        return f"{self.machines[0].address}:{GCS}"


@contextmanager
def ray_cluster(home: Path, cpus: Sequence[int]) -> Iterator[Cluster]:
    """A cluster with a node for each number of CPUs, which requires TOKEN."""
    python = python_without_installation(home / "venv")
    shared = home / "shared"
    shared.mkdir()
    with machines(home, len(cpus)) as made, ExitStack() as all_nodes:
        nodes = []
        for machine, count in zip(made, cpus, strict=True):
            first = ["--head", f"--port={GCS}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD}"]
            options = first if machine is made[0] else [f"--address={made[0].address}:{GCS}"]
            options += [f"--node-ip-address={machine.address}", f"--num-cpus={count}", "--memory=2000000000"]
            node = all_nodes.enter_context(ExitStack())
            place = {"prefix": machine.prefix(), "temporary": machine.ray_directory}
            node.enter_context(ray_node(machine.home, machine.name, options, python, **place))  # type: ignore[arg-type]
            nodes.append(node)
        yield Cluster(made, nodes, python, shared)


def _ip(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], check=True)
