"""A signal ends a command in order, also a composition in which a library discards the exception of its handler."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines import termination
from pipelines.config import composing
from pipelines.termination import Terminated, terminate


@pytest.fixture(autouse=True)
def nothing_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "_received", [])


def composed_by_a_library(error: Exception | None) -> None:
    """Discards the exception of the handler, as OmegaConf does, and may raise another one for what is half made."""
    with composing([]):
        with suppress(KeyboardInterrupt):
            terminate(signal.SIGTERM, None)
        if error:
            raise error


@pytest.mark.parametrize("error", [None, ValueError("a value that is half made"), AttributeError("the same")])
def test_a_signal_is_not_lost(error: Exception | None) -> None:
    with pytest.raises(Terminated) as caught:
        composed_by_a_library(error)
    assert caught.value.number == signal.SIGTERM


def test_without_a_signal_nothing_is_raised() -> None:
    with composing([]):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["run", "_expect_signals"])
def test_a_signal_ends_a_command_without_a_trace(number: signal.Signals, where: str) -> None:
    code = (
        "import os, signal, time; from pipelines import cli; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"expect = cli._expect_signals; kill = lambda: os.kill(os.getpid(), {int(number)});"
        f"cli.{where} = lambda *_: (expect(), kill(), time.sleep(9)); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 128 + number
    assert done.stderr == ("" if number == signal.SIGINT else f"Stopped by {number.name}.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    """As `nohup` and the `&` of a shell's script start a command."""
    code = (
        "import os; from pipelines import cli;"
        f"cli.run = lambda *_: os.kill(os.getpid(), {int(number)}) or 7; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (7, "")
