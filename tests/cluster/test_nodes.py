"""A cluster of three nodes, each in its own network: what happens between nodes, and when one is cut off."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.import_path import ROOT
from tests.cluster.machines import Cluster, Machine, needs_machines, ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, needs_machines]

DRIVER = ROOT / "tests" / "cluster" / "node_driver.py"
INTERRUPTION_S = 20  # Ray's health checks declare a node dead after about 30 s


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("n"), cpus=(1, 1, 1)) as started:
        yield started


def drive(cluster: Cluster, *words: str) -> dict[str, Any]:
    """What the driver prints on the head's machine."""
    code, output = cluster.machines[0].run(driver(cluster, *words), cluster.directory)
    assert code == 0, output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def driver(cluster: Cluster, task: str, *words: str) -> list[str]:
    return [sys.executable, str(DRIVER), task, cluster.address, *words]


def until(process: subprocess.Popen[str], text: str) -> str:
    """The output of a process, until it contains `text`."""
    assert process.stdout
    output = ""
    while text not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    return output


def rest(process: subprocess.Popen[str]) -> str:
    """The output of a process from here to its end. `communicate` would lose what `until` has left in the buffer."""
    assert process.stdout
    output = process.stdout.read()
    process.wait()
    return output


def interrupt(machine: Machine) -> None:
    machine.cut()
    time.sleep(INTERRUPTION_S)
    machine.mend()


def test_ranks_on_several_nodes_meet_by_the_addresses_of_their_nodes(cluster: Cluster) -> None:
    """The nodes' host names stand for 127.0.1.1, where gloo would listen."""
    assert drive(cluster, "ranks")["results"] == [["done", [[3.0, "net0", "=net0"]] * 3, ""]]


def test_replicas_run_on_several_nodes_and_serve_ends_with_the_step(cluster: Cluster) -> None:
    where = cluster.directory / "where.py"
    where.write_text(
        "import socket\nfrom fastapi import FastAPI\n\n\ndef create(_):\n    app = FastAPI()\n"
        "    app.get('/health')(lambda: None)\n    app.get('/where')(lambda: socket.gethostname())\n    return app\n"
    )
    for machine in cluster.machines[:2]:  # the head, and a node where no replica need be
        served, actors = drive(cluster, "serve", machine.address, str(where))["results"]
        assert served[0] == "done", served  # two replicas, on nodes with one CPU each
        assert actors == ["done", [], ""]


def test_an_interruption_of_the_network_loses_neither_the_step_nor_a_message(cluster: Cluster) -> None:
    away = cluster.machines[1]
    with cluster.machines[0].start(driver(cluster, "count", away.address, "80"), cluster.directory) as process:
        until(process, "number 5\n")
        interrupt(away)
        output = rest(process)
    assert process.returncode == 0, output
    found = json.loads(output.splitlines()[-1])
    assert found["results"] == [["done", "ended", ""]]
    assert found["numbers"] == list(range(80))


SUBMITTING = """
import sys
from cluster.config import RemoteCluster
from cluster.jobs import submit

config = RemoteCluster(address=sys.argv[1], entrypoint_cpus=0, reconnect_timeout_s=float(sys.argv[2]))
program = "import time; [(print('line', n, flush=True), time.sleep(0.5)) for n in range(80)]; raise SystemExit(7)"
print("exit code", submit(config, [], driver=("python", "-P", "-c", program)))
"""


def submitting(cluster: Cluster, patience_s: float) -> tuple[list[str], Path]:
    directory = cluster.directory / "job"
    directory.mkdir(exist_ok=True)
    url = f"http://{cluster.machines[0].address}:8265"
    return [sys.executable, "-c", SUBMITTING, url, str(patience_s)], directory


def lines(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"^line (\d+)$", output, re.MULTILINE)]


def test_a_followed_job_is_followed_on_after_an_interruption(cluster: Cluster) -> None:
    away = cluster.machines[2]
    with away.start(*submitting(cluster, 120)) as process:
        before = until(process, "line 3\n")
        interrupt(away)
        output = rest(process)
    assert output.endswith("exit code 7\n"), output
    assert lines(before + output) == list(range(80))


def test_a_job_that_is_out_of_reach_for_long_can_be_followed_again(cluster: Cluster) -> None:
    away = cluster.machines[2]
    with away.start(*submitting(cluster, 2)) as process:
        before = until(process, "line 3\n")
        away.cut()
        try:
            output = rest(process)
        finally:
            away.mend()
    assert output.endswith("exit code 75\n"), output
    command = re.search(r"bloomline (attach bloomline-\S+ cluster=remote cluster.address=\S+)", before + output)
    assert command, output
    words = [sys.executable, "-m", "bloomline", *command[1].split()]
    code, output = away.run(words, cluster.directory, {"XDG_CACHE_HOME": str(cluster.directory / "cache")})
    assert (code, lines(output)) == (7, list(range(80)))


PROJECT = """
[tool.bloomline]
packages = ["slow"]
config = "conf"
pipeline = "slow"
"""

PIPELINE = """
# @package _global_
name: slow
steps:
  slow:
    stage: slow:Slow
    resources: {cpus: 1}
"""

# Takes the CPU of the head's node, so that the step runs on another one.
HOLDING = """
import sys
import time

import ray

ray.init(address=f"{sys.argv[1]}:6379", log_to_driver=False)
task = ray.remote(num_cpus=1, resources={f"node:{sys.argv[1]}": 0.001})(lambda: time.sleep(600)).remote()
print("held", flush=True)
ray.get(task)
"""

STAGE = """
import socket
import time
from dataclasses import dataclass

from helper import TEXT  # beside the package, and not named in pyproject.toml
from stages.base import Artifact, Context, Stage


@dataclass(frozen=True)
class Text(Artifact):
    pass


class Slow(Stage):
    def run(self, ctx: Context) -> Text:
        for second in range(30):
            (ctx.scratch / "where").write_text(socket.gethostname())
            time.sleep(1)
        (ctx.out / "text").write_text(TEXT)
        return Text(ctx.out)
"""


def test_a_step_that_is_lost_with_its_node_is_started_again(cluster: Cluster) -> None:
    """The last test of this cluster, which loses a node."""
    project = cluster.directory / "project"
    (project / "conf" / "pipeline").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "helper.py").write_text('TEXT = "text"\n')
    (project / "slow.py").write_text(STAGE)
    (project / "conf" / "pipeline" / "slow.yaml").write_text(PIPELINE)
    head = cluster.machines[0]
    holding = [cluster.python, "-c", HOLDING, head.address]
    run = [sys.executable, "-m", "bloomline", "run", "cluster=remote", f"cluster.address={cluster.address}"]
    with head.start(holding, project, {"PYTHONPATH": ""}) as holder:
        until(holder, "held")
        try:
            with head.start(run, project, {"XDG_CACHE_HOME": str(project / "cache")}) as process:
                place = wait_for_place(project)
                cluster.nodes[int(place.removeprefix("m"))].close()
                output = rest(process)
        finally:
            holder.kill()
    assert process.returncode == 0, output
    assert "was lost with its node. It is started again (1 of 3)" in output
    assert "raylet" not in output  # Ray's own log
    assert "heartbeat" not in output


def wait_for_place(project: Path) -> str:
    """The name of the machine on which the step runs."""
    for _ in range(600):
        for file in (project / ".bloomline" / "scratch").glob("*/where"):
            if (name := file.read_text()) != "m0":
                return name
        time.sleep(0.1)
    raise TimeoutError
