"""kill -9 of the driver, of a rank, or of the Ray head during pretraining. The same command then always ends with the
checkpoint of an undisturbed run, bit for bit."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines.store import Record, Store, StoreConfig
from tests.end_to_end.conftest import CommandLine, family, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(420)]

Register = Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
Training = tuple[CommandLine, subprocess.Popen[str]]

TRAINING = [
    "pipeline=debug",
    "until=pretrain",
    "steps.pretrain.steps=150",
    "steps.pretrain.checkpoint_every_steps=10",
    "steps.pretrain.ranks=2",
]


def pretrained(command_line: CommandLine) -> Record | None:
    store = Store(StoreConfig(root=str(command_line.store)))
    return next((record for record in store.records() if record.step == "pretrain"), None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with the steps before pretraining, and the content of the checkpoint of an undisturbed run (one rank)."""
    directory = tmp_path_factory.mktemp("undisturbed")
    command_line = CommandLine(directory)
    code, out = command_line("run", *TRAINING, "until=tokens", "cluster=inline")
    assert code == 0, out
    before = directory / "before"
    shutil.copytree(command_line.store, before)
    code, out = command_line("run", *TRAINING, "cluster=inline", "steps.pretrain.ranks=1")
    assert code == 0, out
    record = pretrained(command_line)
    assert record is not None
    return before, record.content


@pytest.fixture
def training(bloomline: CommandLine, undisturbed: tuple[Path, str], started: Register) -> Training:
    """The driver of a run that is pretraining and has saved a checkpoint."""
    shutil.copytree(undisturbed[0], bloomline.store)
    process = started(bloomline.start("run", *TRAINING))
    found = bloomline.store / "scratch"
    wait_for(lambda: list(found.glob("*/checkpoints/step-*")) or process.poll() is not None, 180, "no checkpoint")
    assert process.poll() is None, process.communicate()[0]
    return bloomline, process


def resumes(bloomline: CommandLine, content: str, *where: str) -> str:
    """Run the same command, in process or `where`. It resumes from a checkpoint and ends with the same bits.

    Returns what it printed.
    """
    code, out = bloomline("run", *TRAINING, *(where or ["cluster=inline"]))
    assert code == 0, out
    assert "resumes from the checkpoint of step" in out
    record = pretrained(bloomline)
    assert record is not None
    assert record.content == content
    return out


def test_sigterm_saves_and_stops_and_then_the_driver_is_killed(
    training: Training, undisturbed: tuple[Path, str], started: Register
) -> None:
    bloomline, process = training
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "stopped" in out
    saved = newest_step(bloomline)
    again = started(bloomline.start("run", *TRAINING))
    wait_for(lambda: newest_step(bloomline) > saved or again.poll() is not None, 180, "no further checkpoint")
    assert again.poll() is None, again.communicate()[0]
    ranks = [child for child in family(again.pid) if is_rank(child)]
    assert len(ranks) == 2
    again.send_signal(signal.SIGKILL)
    again.wait(timeout=90)
    assert pretrained(bloomline) is None
    wait_for(lambda: not any(alive(rank) for rank in ranks), 60, "ranks of the killed run are left")
    resumes(bloomline, undisturbed[1])


def test_the_loss_of_the_terminal_saves_and_stops(training: Training, undisturbed: tuple[Path, str]) -> None:
    """The SIGHUP of a closed terminal reaches the driver and every process that it has started."""
    bloomline, process = training
    saved = newest_step(bloomline)
    for one in [*family(process.pid), psutil.Process(process.pid)]:
        one.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGHUP, out
    assert "lost" not in out
    assert newest_step(bloomline) > saved
    resumes(bloomline, undisturbed[1])


def test_a_rank(training: Training, undisturbed: tuple[Path, str]) -> None:
    bloomline, process = training
    ranks = [child for child in family(process.pid) if is_rank(child)]
    assert len(ranks) == 2, [child.name() for child in family(process.pid)]
    ranks[1].kill()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "resumes from the checkpoint of step" in out
    record = pretrained(bloomline)
    assert record is not None
    assert record.content == undisturbed[1]


def test_the_ray_head(training: Training, undisturbed: tuple[Path, str]) -> None:
    bloomline, process = training
    for child in family(process.pid):
        if child.name() in ("gcs_server", "raylet"):
            child.kill()
    out, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "Traceback" not in out, out
    assert "bloomline" in out.split("Next:")[-1], out
    assert pretrained(bloomline) is None
    # The machine has one CPU less now: one rank continues the work of two.
    one_cpu = ["cluster.cpus=1", "steps.pretrain.minimum_ranks=1"]
    out = resumes(bloomline, undisturbed[1], *one_cpu)
    assert "fits with 1 rank" in out
    assert "the cluster can't place 2 ranks now; trying with 1" in out


def newest_step(command_line: CommandLine) -> int:
    found = (command_line.store / "scratch").glob("*/checkpoints/step-*")
    return max((int(path.name.split("-")[1]) for path in found), default=0)


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def is_rank(process: psutil.Process) -> bool:
    """Ray names the process of an actor after its class."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return title.startswith("ray::") and "RankProcess" in title
