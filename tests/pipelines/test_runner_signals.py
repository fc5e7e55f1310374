"""The runner: what signals do to a run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from pipelines.store import Store
from pipelines.store.files import RemoteFiles
from tests.pipelines.demo import six_steps
from tests.pipelines.support import run, states

pytestmark = pytest.mark.usefixtures("demo_stages")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_and_the_same_command_resumes(store: Store, number: signal.Signals) -> None:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), number)).start()
    summary, runner, _ = run(store, six_steps(d__seconds=30))
    assert summary.state == "stopped"
    assert runner.exit_code == 128 + number
    assert states(summary) == "a:done b:done c:done d:stopped e:stopped f:stopped"
    assert (store.scratch(next(s.fingerprint for s in summary.steps if s.name == "d")) / "stopped").exists()
    assert not list((store.config.local_root / "leases").iterdir())
    assert not list((store.config.local_root / "staging").iterdir())
    summary, _, _ = run(store, six_steps())
    assert states(summary) == "a:cached b:cached c:cached d:done e:done f:done"


def test_after_a_second_signal_a_store_that_is_away_is_not_waited_for(store: Store) -> None:
    _, runner, _ = run(store, six_steps(), until=["a"])
    remote = RemoteFiles("memory://away", {}, retry_s=3600, answered=True)
    store.files = remote
    runner.stop(signal.SIGTERM)
    assert not remote._hurried.is_set()  # running steps may still save what they have
    with contextlib.suppress(KeyboardInterrupt):  # where a step runs in this thread
        runner.stop(signal.SIGTERM)
    assert remote._hurried.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_ignores_a_signal_continues(store: Store, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), number))
        timer.start()
        summary, runner, _ = run(store, six_steps(d__seconds=0.6))
        timer.join()
        assert (summary.state, runner.exit_code) == ("done", 0)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
