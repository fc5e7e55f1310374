"""The executor without Ray: its processes, what they may not do, and what happens to those that print or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cluster.base import Launcher, Message, Send
from cluster.config import LocalCluster
from cluster.factory import executor
from cluster.process_executor import ProcessExecutor, describe_exit
from stages.base import Demand, Resources
from tests.cluster import work
from tests.cluster.support import gone, outcome, outcomes, run, until


@pytest.fixture
def processes() -> Iterator[ProcessExecutor]:
    with executor(LocalCluster(cpus=2, gpus=0), spawns=False) as started:
        assert isinstance(started, ProcessExecutor)
        yield started


def exit_with(code: int, launcher: Launcher, send: Send) -> None:
    os._exit(code)


def print_and_die(launcher: Launcher, send: Send) -> None:
    print("what the step printed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def start_a_child_and_wait(launcher: Launcher, send: Send) -> None:
    send(Message("step", "note", {"pid": subprocess.Popen(["sleep", "600"]).pid}))
    work.wait_for_stop(send)


def print_kept(directory: Path, launcher: Launcher, send: Send) -> None:
    with launcher.keep_output(directory):
        print("of Python", flush=True)
        subprocess.run(["echo", "of a child"], check=True)


def parent(launcher: Launcher, send: Send) -> int:
    return os.getppid()


def environment(launcher: Launcher, send: Send) -> list[str]:
    return list(os.environ.values())


def import_path(launcher: Launcher, send: Send) -> tuple[list[str], str]:
    return sys.path, os.environ["PYTHONPATH"]


def test_a_hundred_pieces_of_work_end(processes: ProcessExecutor) -> None:
    for number in range(100):
        processes.start(f"step{number}", partial(work.send_metrics, 3), Demand())
    assert {(ended.state, ended.result) for ended in outcomes(processes, 100)} == {("done", 3)}


def test_an_end_without_an_outcome_names_the_exit_code(processes: ProcessExecutor) -> None:
    ended, _ = run(processes, partial(exit_with, 7))
    assert (ended.state, ended.error) == ("lost", "The process of step step was lost: it exited with code 7.")
    assert describe_exit(-signal.SIGSEGV) == "it was ended by SIGSEGV"


def test_what_a_lost_process_printed_is_kept(processes: ProcessExecutor) -> None:
    ended, _ = run(processes, print_and_die)
    place = Path(ended.error.rpartition(" is in ")[2].rstrip("."))
    processes.close()
    assert place.read_text() == "what the step printed\n"


def test_the_children_of_a_killed_process_end_too(processes: ProcessExecutor) -> None:
    processes.start("step", start_a_child_and_wait, Demand())
    child = until(processes, bool)[0].body["pid"]
    processes.kill("step")
    assert outcome(processes)[0].state == "stopped"
    assert gone([child])


def test_another_server_is_started_for_one_that_was_killed(processes: ProcessExecutor) -> None:
    server = run(processes, parent)[0].result
    processes.start("running", work.send_pid_and_wait, Demand())
    until(processes, bool)
    os.kill(server, signal.SIGKILL)
    ended, _ = outcome(processes)
    assert (ended.step, ended.state) == ("running", "lost")
    again, _ = run(processes, parent)
    assert again.state == "done"
    assert again.result != server


def test_gangs_maps_and_applications_are_refused(processes: ProcessExecutor) -> None:
    asked, _ = run(processes, partial(work.gang, work.assignment, (), 2, 0))
    assert asked.state == "failed"
    assert asked.error == (
        "The stage of step step calls ctx.gang, and its class says `spawns = False`: remove that line from the class."
    )


def test_the_users_packages_can_be_imported_and_the_working_directory_comes_late(tmp_path: Path) -> None:
    package = tmp_path / "my_words"
    package.mkdir()
    (package / "__init__.py").touch()
    with executor(LocalCluster(cpus=2), [package], spawns=False) as started:
        path, variable = run(started, import_path)[0].result
    assert str(tmp_path) in path
    assert variable.split(os.pathsep)[-1] == str(tmp_path)


def test_the_processes_have_no_keys_of_the_driver(processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOOMLINE_SIGNING_KEY", "secret")
    with executor(LocalCluster(cpus=2), spawns=False) as started:
        assert "secret" not in run(started, environment)[0].result


def test_closing_leaves_no_process_and_no_file() -> None:
    with executor(LocalCluster(cpus=2), spawns=False) as started:
        assert isinstance(started, ProcessExecutor)
        server = run(started, parent, Demand(task=Resources(cpus=1)))[0].result
        started.start("step", work.send_pid_and_wait, Demand())
        pid = until(started, bool)[0].body["pid"]
        directory = started._directory.path
    assert gone([server, pid])
    assert not directory.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux the kernel ends the processes of a server")
def test_a_killed_driver_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import time; from functools import partial; from cluster.config import LocalCluster; "
        "from cluster.factory import executor; from stages.base import Demand; from tests.cluster import work; "
        "from tests.cluster.support import until; from tests.cluster.test_process_executor import parent\n"
        "with executor(LocalCluster(cpus=2), spawns=False) as processes:\n"
        "    processes.start('step', work.send_pid_and_wait, Demand())\n"
        "    pid = until(processes, bool)[0].body['pid']\n"
        "    print(pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout
        pid = int(driver.stdout.readline())
        driver.kill()
        assert gone([pid])


def test_what_the_work_prints_is_kept_where_it_says(processes: ProcessExecutor, tmp_path: Path) -> None:
    ended, _ = run(processes, partial(print_kept, tmp_path))
    assert ended.state == "done"
    (part,) = (tmp_path / "step").iterdir()
    assert part.read_text() == "of Python\nof a child\n"
