"""Runs the real command line in separate processes, as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class CommandLine:
    """`bloomline` with its own home directory and store."""

    directory: Path

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def environment(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        return {**kept, "HOME": str(home), "BLOOMLINE_ROOT": str(self.store), "PYTHONPATH": str(ROOT), "COLUMNS": "160"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines.cli", *words]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def __call__(self, *words: str, timeout_s: float = 240) -> tuple[int, str]:
        """The exit code, and everything that was printed."""
        process = self.start(*words)
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            end(process)
            raise
        return process.returncode, out


@pytest.fixture
def bloomline(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def started() -> Iterator[Callable[[subprocess.Popen[str]], subprocess.Popen[str]]]:
    """Registers a process that is ended with all of its children after the test."""
    processes: list[subprocess.Popen[str]] = []

    def register(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        processes.append(process)
        return process

    yield register
    for process in processes:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    for child in family(process.pid):
        child.kill()
    if process.poll() is None:
        process.kill()
    process.wait(timeout=90)


def family(pid: int) -> list[psutil.Process]:
    """The living descendants of a process."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def wait_for(what: Callable[[], object], timeout_s: float = 90, message: str = "") -> None:
    """Wait until `what()` is true; fails the test otherwise."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            pytest.fail(f"timed out: {message or what}")
        time.sleep(0.1)
