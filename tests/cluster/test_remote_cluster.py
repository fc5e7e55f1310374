"""Joining a running Ray cluster and submitting jobs to it. Its nodes have no installation of this project."""

from __future__ import annotations

import ast
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import job_list
from cluster.base import ClusterError
from cluster.config import RemoteCluster
from cluster.import_path import ROOT
from cluster.jobs import DRIVER, dashboard, in_job, job_client, submit
from tests.cluster.ray_node import TOKEN, Head, ray_head, ray_node
from tests.cluster.test_import_path import imported_files
from tests.cluster.user_project import OWN_MODULES, Project, create_project


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with ray_head(tmp_path_factory.mktemp("h")) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working directory with files that are uploaded and files that are not."""
    for name in (
        "kept.py",
        "keys/server.pem",
        ".git/HEAD",
        "data/corpus.txt",
        "outputs/run.txt",
        ".env",
        "json.py",
        "runpy.py",
        "package/data/kept.txt",
        ".mypy_cache/x",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('not the module of Python')" if path.suffix == ".py" else "")
    return tmp_path / "tree"


@pytest.mark.ray
@pytest.mark.slow
def test_jobs(head: Head, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test for the whole life of a job, because starting a head takes long."""
    config = RemoteCluster(address=head.dashboard)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # not the configured address

    def run(program: str, *overrides: str, **options: Any) -> int:
        return submit(config, overrides, directory=tree, driver=("python", "-P", "-c", program), **options)

    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN"):
        run("pass")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong" * 8)
    with pytest.raises(ClusterError, match="rejected the token"):
        run("pass")

    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tree.parent / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tree.parent / "token"))
    program = (
        "import glob, json, sys, ray; print(sorted(glob.glob('**', recursive=True, include_hidden=True))); "
        "print(sys.argv[1:]); "
        "ray.init(address='auto'); print('joined', ray.is_initialized()); "
        "from cluster.config import RemoteCluster; from cluster.factory import nodes; "
        "print('free of 2:', [node.cpus for node in nodes(RemoteCluster())]); sys.exit(7)"
    )
    out = io.StringIO()
    assert run(program, "seed=a b", "cluster.address=x", out=out) == 7
    output = out.getvalue()
    assert "free of 2: [1.0]" in output, output
    travelled = ["json.py", "kept.py", "package", "package/data", "package/data/kept.txt", "runpy.py"]
    assert str(travelled) in output, output
    assert "keys/server.pem (secrets)" in output.splitlines()[0]
    assert "['seed=a b', 'cluster=remote', 'cluster.address=auto']" in output
    assert "joined True" in output
    assert run("pass", out=io.StringIO()) == 0

    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return "s"

    # It takes longer to stop than Ray gives a job by default: a run saves what its steps have.
    endless = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5), print('saved', flush=True), sys.exit(0))); "
        "print('be' + 'gun', flush=True); time.sleep(60)"  # not in the command line, which the log shows
    )
    interrupting = Interrupting("begun")
    assert run(endless, out=interrupting, ask=ask) == 130
    assert len(questions) == 1
    assert "\nsaved\n" in interrupting.getvalue()


IMPORTING = """
import json, os, sys
from cluster.base import Outcome
from cluster.config import RemoteCluster
from cluster.factory import executor
from stages.base import Demand, Resources
from user_package.data.facts import imported

def step(launcher, send):
    return [os.getcwd(), imported()]

with executor(RemoteCluster()) as joined:
    joined.start("step", step, Demand(task=Resources(cpus=0)))
    while not (ended := [event for event in joined.wait(1) if isinstance(event, Outcome)]):
        pass
print("facts", json.dumps([os.getcwd(), imported(), ended[0].result, ended[0].error]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_job_imports_our_packages_and_the_users(
    head: Head, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RemoteCluster(address=head.dashboard, entrypoint_cpus=0)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    out = io.StringIO()
    driver = ("python", "-P", "-c", IMPORTING)
    code = submit(config, [], packages=project.packages, directory=project.directory, driver=driver, out=out)
    assert code == 0, out.getvalue()
    facts = next(line for line in out.getvalue().splitlines() if line.startswith("facts "))
    directory, in_driver, (directory_of_step, in_step), error = json.loads(facts.removeprefix("facts "))
    assert error == ""
    assert directory_of_step == directory, "relative paths mean the same in the driver and in steps"
    for files in (in_driver, in_step):
        assert_copies(files, project)
        assert not any(file.startswith(directory) for file in files.values())

    out = io.StringIO()
    assert submit(config, ["pipeline=absent"], directory=project.directory, driver=DRIVER, out=out) != 0
    assert "quickstart" in out.getvalue(), "the driver does not list the pipelines of the shipped configuration"


ENVIRONMENT = """
import os
from cluster.base import Outcome
from cluster.config import RemoteCluster
from cluster.factory import executor
from cluster.submitted_job import lacking, take_forwarded_environment
from stages.base import Demand, Resources

def step(launcher, send):
    return os.environ["FLAVOUR"], len(os.environ["WORD_OF_A_TEST"])

take_forwarded_environment()
with executor(RemoteCluster()) as joined:
    joined.start("step", step, Demand(task=Resources(cpus=0)))
    while not (ended := [event for event in joined.wait(1) if isinstance(event, Outcome)]):
        pass
print("step has", ended[0].result, "lacks", lacking() or "nothing")
"""


@pytest.mark.ray
@pytest.mark.slow
def test_jobs_have_the_configured_environment_and_are_listed(
    head: Head, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("WORD_OF_A_TEST", "secret-0815")
    config = RemoteCluster(
        address=head.dashboard,
        entrypoint_cpus=0,
        runtime_env={"env_vars": {"FLAVOUR": "vanilla"}},
        forward_env=("WORD_OF_*",),
    )
    out = io.StringIO()
    driver = ("python", "-P", "-c", ENVIRONMENT)
    who = {"user": "ana", "pipeline": "books"}
    given = ["pipeline=books", "cluster=remote", "cluster.entrypoint_cpus=0"]
    assert submit(config, given, directory=project.directory, driver=driver, submitter=who, out=out) == 0
    assert "step has ('vanilla', 11) lacks nothing" in out.getvalue(), out.getvalue()
    assert "Forwarding environment variables: WORD_OF_A_TEST." in out.getvalue()
    job = job_list.jobs(config)[0]
    assert (job.state, job.user, job.pipeline) == ("SUCCEEDED", "ana", "books")
    assert job_list.to_retry(config, job.name).overrides == ["pipeline=books", "cluster.entrypoint_cpus=0"]
    log = io.StringIO()
    assert job_list.logs(config, job.name, follow=False, out=log) == 0
    assert "step has" in log.getvalue()
    known = job_client(head.dashboard)._do_request("GET", "/api/jobs/").text
    assert "secret-0815" not in known + out.getvalue() + log.getvalue(), "the dashboard shows a forwarded value"
    assert job_list.stop(config, job.name, out=out) == 0
    assert "has ended already: succeeded" in out.getvalue()
    with pytest.raises(ClusterError, match=f"does not know a job 'absent'. The latest one is {job.name}"):
        job_list.stop(config, "absent")


@pytest.mark.ray
@pytest.mark.slow
def test_processes_of_a_joined_cluster_import_our_packages_and_the_users(
    head: Head, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    found = imported_files(project, head.gcs)
    assert set(found) == {"step", "rank", "map worker", "replica"}
    for files in found.values():
        assert_copies({name: str(file) for name, file in files.items()}, project)


def assert_copies(files: dict[str, str], project: Project) -> None:
    """Every module was imported from a copy that Ray unpacked on the node."""
    assert set(files) == {*OWN_MODULES, "user_package.data.facts", "user_module"}
    for name, file in files.items():
        assert "py_modules_files" in file, f"{name} was imported from {file}"
        assert not Path(file).is_relative_to(ROOT)
        assert not Path(file).is_relative_to(project.directory.parent)


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
    print("rejected:", error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_gang_spans_the_nodes_of_a_joined_cluster(head: Head, tmp_path: Path) -> None:
    def join(token: str) -> str:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-c", JOINING, head.gcs]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    assert "rejected the token" in join("wrong" * 8)
    with ray_node(tmp_path, "n", [f"--address={head.gcs}", "--num-cpus=1"], head.python):
        output = join(TOKEN).splitlines()
    nodes, gang = output[:2]
    assert nodes == "[1.0, 2.0]"
    seats = ast.literal_eval(gang.removeprefix("done "))
    assert sorted(local for _, local, _ in seats) == [0, 0, 1]
    assert [index for index, _, _ in seats] == [0, 1, 2]
    interfaces = {interface for _, _, interface in seats}
    assert len(interfaces) == 1, "both nodes are on this machine"
    assert interfaces <= set(psutil.net_if_addrs())
    assert output[2].startswith("failed None Step step needs 5 CPUs")


STAGE = """
from stages.base import Artifact, Context, Stage

class Said(Artifact):
    pass

class Say(Stage):
    headline = "number"
    number: int = 1

    def run(self, ctx: Context) -> Said:
        (ctx.out / "said.txt").write_text("said")
        ctx.metrics({"number": self.number})
        return Said(ctx.out)
"""
PIPELINE = "# @package _global_\nname: mine\npackages: [mine]\nsteps:\n  say: {stage: 'mine:Say'}\n"


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_joins_a_cluster_once_for_all_jobs(head: Head, tmp_path: Path) -> None:
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "mine.yaml").write_text(PIPELINE)
    (tmp_path / "mine.py").write_text(STAGE)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    overrides = ["hydra.searchpath=[file://conf]", "pipeline=mine", "store.root=store"]
    overrides += ["cluster=remote", f"cluster.address={head.gcs}", "steps.say.number=3,4"]
    objective = ["sweep.objective=steps.say.number", "sweep.direction=maximize"]
    command = [sys.executable, "-P", "-m", "pipelines.cli", "run", "--multirun", *overrides, *objective]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Joining the Ray cluster") + done.stderr.count("Joining the Ray cluster") == 1
    table = done.stdout.split("\nJob  ")[1].splitlines()[1:3]
    assert [row.split()[:4] for row in table] == [["1", "4", "4", "done"], ["0", "3", "3", "done"]]


class Interrupting(io.StringIO):
    """Output that raises SIGINT once, when a word is written."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def write(self, text: str) -> int:
        if self._word and self._word in text:
            self._word = ""
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_a_job_uses_the_cluster_that_it_runs_on() -> None:
    overrides = [
        "pipeline=quickstart",
        "cluster=remote",
        "cluster.address=http://h:8265",
        "cluster.placement_timeout_s=5",
    ]
    expected = ["pipeline=quickstart", "cluster.placement_timeout_s=5", "cluster=remote", "cluster.address=auto"]
    assert in_job(overrides) == expected


@pytest.mark.parametrize(
    ("address", "says"), [("http://127.0.0.1:9", "Nothing answers"), ("head:6379", "does not accept jobs")]
)
def test_an_address_that_does_not_accept_jobs_is_one_clear_error(address: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        dashboard(RemoteCluster(address=address))
