"""Jobs on a real Ray head with token authentication, in a directory and on ports of its own."""

from __future__ import annotations

import ast
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.jobs import dashboard, in_job, submit
from tests.cluster.support import gone
from tests.cluster.test_driver_death import descendants

TOKEN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Head:
    """Where a Ray head answers."""

    dashboard: str
    gcs: str


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A Ray head that asks for TOKEN."""
    gcs, http, client = (free_port() for _ in range(3))
    options = ["--head", f"--port={gcs}", f"--dashboard-port={http}", f"--ray-client-server-port={client}"]
    options += ["--dashboard-host=127.0.0.1", "--include-dashboard=true", "--num-cpus=2"]
    with ray_node(tmp_path_factory.mktemp("h"), "h", options):
        yield Head(dashboard=f"http://127.0.0.1:{http}", gcs=f"127.0.0.1:{gcs}")


@contextmanager
def ray_node(home: Path, name: str, options: list[str]) -> Iterator[None]:
    """A node of Ray's as `ray start` makes it, ended with all that it started."""
    temporary = f"/tmp/bl-{os.getpid()}{name}"  # short: Ray makes Unix sockets below it
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *options, "--disable-usage-stats"]
    command += [f"--object-store-memory={100 << 20}", f"--dashboard-agent-listen-port={free_port()}"]
    if "--head" in options:
        command.append(f"--temp-dir={temporary}")
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(home)}
    log = home / "node.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        assert started_up(log, process), log.read_text()
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
        shutil.rmtree(temporary, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started_up(log: Path, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(480):
        if "Ray runtime started" in log.read_text():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.25)
    return False


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with what belongs into the upload and what does not."""
    for name in (
        "kept.py",
        ".git/HEAD",
        "data/corpus.txt",
        "outputs/run.txt",
        "package/data/kept.txt",
        ".mypy_cache/x",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "tree"


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


@pytest.mark.ray
@pytest.mark.slow
def test_jobs(head: Head, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test for all: a head is dear."""
    config = RemoteCluster(address=head.dashboard)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # not where the config says

    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN"):
        submit(config, [], directory=tree, driver=python("pass"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong" * 8)
    with pytest.raises(ClusterError, match="rejected the token"):
        submit(config, [], directory=tree, driver=python("pass"))

    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tree.parent / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tree.parent / "token"))
    program = (
        "import glob, sys, ray; print(sorted(glob.glob('**', recursive=True, include_hidden=True))); "
        "print(sys.argv[1:]); "
        "ray.init(address='auto'); print('joined', ray.is_initialized()); "
        "from cluster.config import RemoteCluster; from cluster.factory import nodes; "
        "print('free of 2:', [node.cpus for node in nodes(RemoteCluster())]); sys.exit(7)"
    )
    out = io.StringIO()
    assert submit(config, ["seed=a b", "cluster.address=x"], directory=tree, driver=python(program), out=out) == 7
    said = out.getvalue()
    assert "free of 2: [1.0]" in said, said
    assert "['kept.py', 'package', 'package/data', 'package/data/kept.txt']" in said, said
    assert "['seed=a b', 'cluster=remote', 'cluster.address=auto']" in said
    assert "joined True" in said
    assert submit(config, [], directory=tree, driver=python("pass"), out=io.StringIO()) == 0

    answers_to_ctrl_c: list[str] = []

    def ask(question: str) -> str:
        answers_to_ctrl_c.append(question)
        return "s"

    out = Interrupting("begun")
    assert (
        submit(
            config,
            [],
            directory=tree,
            driver=python("import time; print('begun', flush=True); time.sleep(60)"),
            out=out,
            ask=ask,
        )
        == 130
    )
    assert len(answers_to_ctrl_c) == 1


JOINING = """
import os, sys
from cluster.base import ClusterError, Gang, Outcome
from cluster.config import RemoteCluster
from cluster.factory import executor
from stages.base import Demand, Resources

def gang(launcher, send):
    return launcher.gang("step", Gang(seat, ranks=3), send)

def seat(rank):
    return rank.index, rank.local_index, os.environ.get("GLOO_SOCKET_IFNAME")

try:
    with executor(RemoteCluster(address=sys.argv[1], placement_timeout_s=2)) as joined:
        print(sorted(node.cpus for node in joined.nodes))
        for work, demand in [
            (gang, Demand(task=Resources(cpus=0), ranks=3)),
            (lambda launcher, send: os.getcwd(), Demand(task=Resources(cpus=5))),
        ]:
            joined.start("step", work, demand)
            while not (ended := [event for event in joined.wait(1) if isinstance(event, Outcome)]):
                pass
            print(ended[0].state, ended[0].result, ended[0].error)
except ClusterError as error:
    print("refused:", error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_joins_a_running_cluster_and_brings_the_code(head: Head, tmp_path: Path) -> None:
    def join(token: str) -> str:
        root = str(Path(__file__).parents[2])
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": root}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-c", JOINING, head.gcs]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    assert "refused: " in join("wrong" * 8)
    with ray_node(tmp_path, "n", [f"--address={head.gcs}", "--num-cpus=1"]):
        said = join(TOKEN).splitlines()
    nodes, gang = said[:2]
    assert nodes == "[1.0, 2.0]"
    seats = ast.literal_eval(gang.removeprefix("done "))
    assert sorted(local for _, local, _ in seats) == [0, 0, 1]
    assert [(index, interface) for index, _, interface in seats] == [(0, None), (1, None), (2, None)]
    assert said[2].startswith("failed None Step step asks 5 CPUs")


class Interrupting(io.StringIO):
    """Output that presses Ctrl-C once, when a word is written."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def write(self, text: str) -> int:
        if self._word and self._word in text:
            self._word = ""
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_overrides_of_the_cluster_give_way_to_the_one_the_job_is_in() -> None:
    given = ["pipeline=quickstart", "cluster=remote", "cluster.address=http://h:8265", "cluster.placement_timeout_s=5"]
    there = ["pipeline=quickstart", "cluster.placement_timeout_s=5", "cluster=remote", "cluster.address=auto"]
    assert in_job(given) == there


@pytest.mark.parametrize(
    ("address", "says"), [("http://127.0.0.1:9", "Nothing answers"), ("head:6379", "does not accept jobs")]
)
def test_an_address_that_does_not_accept_jobs_is_one_clear_error(address: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        dashboard(RemoteCluster(address=address))
