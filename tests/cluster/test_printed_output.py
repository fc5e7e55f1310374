"""What the processes of a step print is kept: whole, bounded, and never at the price of the work."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Executor, Gang, Items, Launcher, Send
from cluster.config import InlineCluster
from cluster.factory import executor
from cluster.printed_output import OutputFile, claim, copied, not_copied, part_name, parts, redirected
from stages.base import Rank, Resources, StageError
from tests.cluster.support import run


def content(directory: Path) -> str:
    return "".join(path.read_text() for _, path in parts(directory))


PRINTS = """
import logging, os, subprocess, sys
from pathlib import Path
from cluster.printed_output import redirected
print("before", flush=True)
with redirected(Path(sys.argv[1])):
    print("from Python")
    logging.getLogger("own").info("logged")
    os.write(2, b"from a library\\n")
    subprocess.run(["echo", "from a child"])
    {last}
print("after", flush=True)
"""


def in_process(directory: Path, last: str) -> subprocess.CompletedProcess[str]:
    """Run a process that keeps what it prints. `last`: its last statement."""
    command = [sys.executable, "-c", PRINTS.replace("{last}", last), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


def test_a_process_keeps_what_python_libraries_and_children_print(tmp_path: Path) -> None:
    ended = in_process(tmp_path / "log", "pass")
    assert (ended.stdout, ended.stderr) == ("before\nafter\n", "")
    first, logged, *rest = content(tmp_path / "log").splitlines()
    assert (first, logged[-16:], rest) == ("from Python", "INFO own: logged", ["from a library", "from a child"])


def test_what_was_printed_before_a_kill_is_kept(tmp_path: Path) -> None:
    assert in_process(tmp_path / "log", "os.kill(os.getpid(), 9)").returncode == -9
    assert content(tmp_path / "log").endswith("from a child\n")


def test_the_traceback_of_an_exception_is_kept_and_that_of_a_refusal_is_not(tmp_path: Path) -> None:
    in_process(tmp_path / "bug", "raise ValueError('a bug')")
    assert content(tmp_path / "bug").endswith("ValueError: a bug\n")
    in_process(tmp_path / "refusal", "from stages.base import StageError; raise StageError('no')")
    assert "Traceback" not in content(tmp_path / "refusal")


def test_a_log_that_begins_again_says_so(tmp_path: Path) -> None:
    for _ in range(2):
        in_process(tmp_path / "log", "pass")
    assert content(tmp_path / "log").count("--- begins again at ") == 1


def test_a_directory_that_cannot_be_written_to_costs_output_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = in_process(tmp_path / "file" / "log", "pass")
    assert ended.returncode == 0
    assert "from a child" in ended.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_costs_output_only(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / part_name(0)).symlink_to("/dev/full")
    with redirected(tmp_path / "log"):
        print("more" * 100_000)
        logging.getLogger("own").error("more")


def test_many_parts_that_nobody_collects_lose_their_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.printed_output.PART_BYTES", 100)
    log = OutputFile(tmp_path / "log")
    for number in range(100):
        log.write(f"line {number:04}\n")
    log.close()
    offsets = [offset for offset, _ in parts(tmp_path / "log")]
    assert offsets == [0, 800, 900, 1000]
    assert content(tmp_path / "log").startswith("line 0000\n")
    assert content(tmp_path / "log").endswith("line 0099\n")
    log.write("after it is closed")


def test_workers_claim_logs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "worker-1").mkdir()
    assert claim(tmp_path, "worker") == tmp_path / "worker-2"
    assert claim(tmp_path, "worker") == tmp_path / "worker-2"


def test_a_copy_reaches_the_terminal_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with copied(tmp_path / "step"):
        print("of the step")
        print("of the step too", file=sys.stderr)
        with not_copied():
            print("of the driver")
        with copied(tmp_path / "rank-0"):
            print("of the rank")
    print("after")
    assert content(tmp_path / "step") == "of the step\nof the step too\n"
    assert content(tmp_path / "rank-0") == "of the rank\n"
    assert capsys.readouterr() == ("of the step\nof the driver\nof the rank\nafter\n", "of the step too\n")


def test_nothing_is_written_for_work_that_prints_nothing(tmp_path: Path) -> None:
    with copied(tmp_path / "step"):
        pass
    assert not (tmp_path / "step").exists()


def test_logging_is_kept_and_shown_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    level = logging.getLogger().level
    with copied(tmp_path / "step"):
        logging.getLogger("own").info("in the log")
        logging.getLogger("own").warning("in both")
    assert [line.split(" own: ")[1] for line in content(tmp_path / "step").splitlines()] == ["in the log", "in both"]
    assert capsys.readouterr().err == "in both\n"
    assert logging.getLogger().level == level


def test_logging_that_the_work_sets_up_itself_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with copied(tmp_path / "step"):
        logging.basicConfig(format="own format %(message)s", level=logging.WARNING)
        logging.getLogger("own").info("not shown")
        logging.getLogger("own").warning("shown")
    assert content(tmp_path / "step") == "own format shown\n"


def test_redirecting_nowhere_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with redirected(None):
        print("here")
    assert capsys.readouterr().out == "here\n"


def speak(directory: Path, launcher: Launcher, send: Send) -> None:
    """Print in the step's own process, in two ranks and in two workers; one rank is then killed."""
    with launcher.keep_output(directory):
        print("step")
        list(launcher.map("step", Items(speak_of, [1, 2, 3], 2, Resources(cpus=1)), send))
        with contextlib.suppress(StageError):
            launcher.gang("step", Gang(speak_as, (directory.parent / "said",), 2, Resources(cpus=1)), send)


def speak_of(item: int) -> None:
    print("item", item)


def speak_as(rank: Rank, said: Path) -> None:
    os.write(1, f"rank {rank.index}\n".encode())
    if rank.index == 0:
        said.touch()
        return
    while not said.exists():  # the death of a rank ends the others
        time.sleep(0.01)
    os.kill(os.getpid(), 9)


def processes(directory: Path) -> dict[str, Any]:
    return {path.name: sorted(content(path).splitlines()) for path in sorted(directory.iterdir())}


@pytest.mark.ray
def test_every_process_of_a_step_on_ray_has_a_log(ray_session: Executor, tmp_path: Path) -> None:
    ended, _ = run(ray_session, partial(speak, tmp_path / "output"))
    assert ended.state == "done", ended.error
    found = processes(tmp_path / "output")
    workers = [found.pop(name) for name in list(found) if name.startswith("worker-")]
    assert sorted(line for lines in workers for line in lines) == ["item 1", "item 2", "item 3"]
    assert found["step"] == ["step"]
    assert found["rank-0"] == ["rank 0"]
    assert found["rank-1"][-1] == "rank 1"


def test_inline_a_rank_has_a_log_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(launcher: Launcher, send: Send) -> None:
        with launcher.keep_output(tmp_path / "output"):
            print("step")
            launcher.gang("step", Gang(lambda rank: print("rank", rank.index)), send)

    with executor(InlineCluster()) as inline:
        run(inline, work)
    assert processes(tmp_path / "output") == {"rank-0": ["rank 0"], "step": ["step"]}
    assert capsys.readouterr().out == "step\nrank 0\n"
