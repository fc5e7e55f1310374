"""`bloomline logs` on a local store and on S3: lists, shows and follows, and names what there is instead."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.config import InlineCluster
from cluster.factory import executor
from pipelines import run_history
from pipelines.errors import BloomlineError
from pipelines.graph import build, select
from pipelines.logs import command
from pipelines.logs.collector import Collector
from pipelines.logs_config import LogsConfig
from pipelines.plan import make
from pipelines.provenance import Provenance
from pipelines.run_history import History
from pipelines.runner import Runner
from pipelines.session import Session
from pipelines.store import Store, StoreConfig
from stages.base import Context
from tests.pipelines import demo, samples

pytestmark = pytest.mark.usefixtures("demo_stages")


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store(StoreConfig(root=str(tmp_path / "store")))
    store: Store = request.getfixturevalue("s3_store")
    return store


class Speaker(demo.Make):
    """Prints, in its own process and as a rank."""

    def run(self, ctx: Context) -> demo.Text:
        print(f"{ctx.step} says {self.text} \x1b[31min red\x1b[0m\x07")
        ctx.gang(_speak, self.text, ranks=1)
        if self.text == "wait":
            SAID.set()
            assert GO_ON.wait(60)
            print("and ends")
        if self.text == "fail":
            raise ValueError("a bug")
        return super().run(ctx)


SAID, GO_ON = threading.Event(), threading.Event()


def _speak(rank: Any, text: str) -> None:
    print(f"rank {rank.index} says {text}")


def run(store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch, text: str = "hello") -> str:
    """Run two steps, of which one prints, and return the run's id."""
    monkeypatch.setattr(demo, "Make", Speaker)
    steps = {"a": {"stage": "make", "text": text}, "b": {"stage": "join", "texts": ["a"]}}
    graph = build("demo", steps)
    with executor(InlineCluster()) as inline:
        plan = make(graph, store, select(graph, (), (), ()), (), lambda: inline.nodes)
        provenance = Provenance(run_id, "bloomline run", "c0ffee", False, {"python": "3"})
        logs = Collector(LogsConfig(collect_interval_s=0.05), store, run_id)
        Runner(plan, store, inline, provenance, "name: demo\n", [logs, History(store)]).run()
    assert logs.notes() == ()
    return run_id


def logs(store: Store, monkeypatch: pytest.MonkeyPatch, *words: str, overrides: tuple[str, ...] = ()) -> int:
    monkeypatch.setattr("pipelines.outline.compose", lambda given, composed: _Composed(store))
    return command.command(words, list(overrides), None, Session())


class _Composed:
    def __init__(self, store: Store) -> None:
        self.settings = self
        self.store = store.config


def test_logs_are_listed_and_shown(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = run(any_store, "run-1", monkeypatch)
    capsys.readouterr()
    assert logs(any_store, monkeypatch, run_id) == 0
    listed = capsys.readouterr().out
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["a", "its"], ["a", "rank"]]
    assert logs(any_store, monkeypatch, "latest", "a") == 0
    shown = capsys.readouterr().out
    assert shown == "== a, its own process\na says hello in red�\n== a, rank 0\nrank 0 says hello\n"
    assert logs(any_store, monkeypatch, run_id, "a", overrides=("rank=0",)) == 0
    assert capsys.readouterr().out == "rank 0 says hello\n"


def test_of_a_cached_step_the_logs_of_the_run_that_made_it_are_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_by = run(store, "run-1", monkeypatch)
    again = run(store, "run-2", monkeypatch)
    capsys.readouterr()
    assert logs(store, monkeypatch, again, "a") == 0
    out, err = capsys.readouterr()
    assert "rank 0 says hello" in out
    assert err == f"a was cached: this is what run {made_by} printed when it made it.\n"
    logs(store, monkeypatch, again)
    assert f"`bloomline logs {made_by}` has its logs" in capsys.readouterr().out
    run_history.delete(store, run_history.find(store, made_by))
    with pytest.raises(BloomlineError, match=f"run {made_by}, which made it, was deleted with its logs"):
        logs(store, monkeypatch, again, "a")


def test_a_failed_step_leaves_its_traceback(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(store, "run-1", monkeypatch, "fail")
    capsys.readouterr()
    logs(store, monkeypatch, "run-1", "a")
    assert "ValueError: a bug" in capsys.readouterr().out


def test_follow_shows_what_a_running_step_prints_until_it_ends(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    SAID.clear()
    GO_ON.clear()
    monkeypatch.setattr(command, "POLL_S", 0.05)
    monkeypatch.setattr("pipelines.run_history.SAVE_INTERVAL_S", 0)
    seen: list[str] = []

    def note(text: str, prefix: str) -> None:
        seen.append(prefix + text)
        if "rank 0 says" in text:
            GO_ON.set()  # only now does the step go on: what it had said was seen before

    monkeypatch.setattr(command, "_print", note)
    codes: list[int] = []

    def follow() -> None:
        SAID.wait(60)
        codes.append(logs(any_store, monkeypatch, "run-1", "a", "--follow"))

    follower = threading.Thread(target=follow)
    follower.start()
    run(any_store, "run-1", monkeypatch, "wait")
    follower.join(60)
    assert codes == [0]
    text = "\n".join(seen)
    assert text.index("rank 0 says wait") < text.index("and ends")
    assert "rank-0 | " in text


@pytest.mark.parametrize(
    ("words", "overrides", "said"),
    [
        ((), (), "logs: expected a run, and a step or none. `bloomline runs` lists the runs."),
        (("nosuch",), (), "There is no run 'nosuch' in"),
        (("run-1", "c"), (), "Run run-1 has no step 'c'."),
        (("run-1", "b"), (), "Step b (done) of run run-1 has printed nothing. Steps with logs: a."),
        (("run-1", "b", "--follow"), (), "Step b (done) of run run-1 has printed nothing."),
        (("run-1", "a"), ("rank=3",), "Step a of run run-1 has no log of rank 3: its own process, rank=0."),
        (("run-1", "a"), ("rank=x",), "logs: rank=x; expected rank=N or worker=N with a whole number."),
        (("run-1", "a"), ("rank=0", "worker=1"), "logs: rank=0 worker=1; expected rank=N or worker=N"),
        (("run-1",), ("rank=0",), "logs: rank=0 is about a step. Name one after the run."),
        (("run-1", "-f"), (), "logs: --follow is about a step. Name one after the run."),
    ],
)
def test_what_is_not_there_is_named_with_what_there_is(
    words: tuple[str, ...], overrides: tuple[str, ...], said: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, "run-1", monkeypatch)
    with pytest.raises(BloomlineError) as refused:
        logs(store, monkeypatch, *words, overrides=overrides)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_logs_go_with_their_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, "run-1", monkeypatch)
    run_history.delete(store, run_history.find(store, "run-1"))
    assert store.files.tokens("runs/run-1") == {}
    assert not (store.config.state / "runs" / "run-1").exists()


def test_a_gap_is_said(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(store, "run-1", monkeypatch)
    store.files.write("runs/run-1/logs/b/step/000000000000000", b"begins\n")
    store.files.write("runs/run-1/logs/b/step/000000002000007", b"ends")
    capsys.readouterr()
    logs(store, monkeypatch, "run-1", "b")
    shown = capsys.readouterr().out
    assert shown == "begins\n[… 1.9 MiB not kept: logs.largest_bytes is the limit …]\nends\n"
    logs(store, monkeypatch, "run-1")
    assert "1.9 MiB" in capsys.readouterr().out


def test_a_run_whose_steps_are_silent_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(store, "run-1", monkeypatch)
    store.files.remove("runs/run-1/logs")
    capsys.readouterr()
    logs(store, monkeypatch, "run-1")
    assert capsys.readouterr().out == "Nothing was printed by the steps of run run-1.\n"


@pytest.mark.parametrize(("gone", "says"), [(True, "was killed, or its machine was lost"), (False, "no sign of life")])
def test_following_ends_when_the_driver_was_killed(
    gone: bool, says: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of this machine, which is known at once, or of another one, which has stopped to write the run's record."""
    samples.leave_running(store, samples.run(tmp_path, "run-1", state="running"))
    store.files.write("runs/run-1/logs/pretrain/step/000000000000000", b"begins\n")
    monkeypatch.setattr(run_history, "is_gone", lambda driver: gone)
    monkeypatch.setattr(command, "POLL_S", 0.01)
    monkeypatch.setattr(command, "SILENT_S", 0.05)
    assert logs(store, monkeypatch, "run-1", "pretrain", "--follow") == 1
    out, err = capsys.readouterr()
    assert out == "begins\n"
    assert says in err
    assert "Continue the run: " in err
