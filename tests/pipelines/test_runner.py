"""The runner: order, parallel steps, failures, retries, leases, signals; all without Ray."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Deliver, Message, Work
from pipelines.graph import build
from pipelines.plan import make
from pipelines.provenance import Provenance
from pipelines.runner import Runner
from pipelines.store import Store
from pipelines.store.lease import Leases
from pipelines.summary import RunSummary, StepSummary
from stages.base import Context, Demand, StageError
from tests.pipelines import demo
from tests.pipelines.demo import six_steps
from tests.pipelines.support import Recorder, ThreadExecutor, put, run, states

pytestmark = pytest.mark.usefixtures("demo_stages")

ALL = "a:{0} b:{0} c:{0} d:{0} e:{0} f:{0}"


def summary_of(summary: RunSummary, step: str) -> StepSummary:
    return next(found for found in summary.steps if found.name == step)


def error_of(step: StepSummary) -> str:
    assert step.error is not None
    return step.error


def text(store: Store, summary: RunSummary, step: str) -> str:
    artifact = summary_of(summary, step).artifact
    assert artifact is not None
    return (Path(artifact) / "text.txt").read_text()


def test_runs_everything_once(store: Store) -> None:
    summary, runner, recorded = run(store, six_steps())
    assert summary.state == "done"
    assert runner.exit_code == 0
    assert states(summary) == ALL.format("done")
    assert text(store, summary, "d") == "a b"
    assert recorded.events[0] == "run started"
    assert recorded.events[-1] == "run done"
    record = store.latest("demo", "c")
    assert record is not None
    assert record.metrics == {"length": 3.0}
    assert record.headline == "length"
    assert record.tracking_run_id == "tracked-c"
    assert set(record.inputs) == {"a", "b"}
    assert record.describe == {"characters": 3}
    again, _, recorded = run(store, six_steps())
    assert states(again) == ALL.format("cached")
    assert not any("started" in event for event in recorded.events[1:])
    assert next(step for step in again.steps if step.name == "c").headline == ("length", 3.0)


def test_a_page_is_kept_with_the_artifact_and_shown_again_when_cached(store: Store) -> None:
    for state in ("done", "cached"):
        summary, _, _ = run(store, six_steps())
        step = next(step for step in summary.steps if step.name == "f")
        assert step.state == state
        assert {name: path.read_text() for name, path in step.pages.items()} == {
            "count.html": "<p>a b has 3 characters"
        }
    assert step.artifact is not None
    assert (Path(step.artifact) / "pages" / "count.html").exists()
    record = store.latest("demo", "f")
    assert record is not None
    without = tuple(file for file in record.files if not file.path.startswith("pages/"))
    assert len(without) == len(record.files) - 1
    assert record.content == record.model_copy(update={"files": without}).content  # a page is for people


def test_a_figure_of_measurements_is_kept_with_the_run_and_shown_again_when_cached(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def draws(self: demo.Make, ctx: Any) -> demo.Text:
        (ctx.out / "text.txt").write_text("x")
        ctx.figure("times", Figure(), measured=True)
        ctx.figure("result", Figure())
        return demo.Text(ctx.out)

    monkeypatch.setattr(demo.Make, "run", draws)
    for state in ("done", "cached"):
        summary, _, _ = run(store, {"a": {"stage": "make"}})
        found = summary_of(summary, "a")
        assert found.state == state
        assert sorted(found.figures) == ["result", "times"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in found.figures.values())
    record = store.latest("demo", "a")
    assert record is not None
    assert {file.path for file in record.files} == {"text.txt", "figures/result.png"}


def test_independent_steps_run_side_by_side_within_the_resources(store: Store, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    steps: dict[str, dict[str, Any]] = {"a": {"stage": "make"}}
    for name in "bcd":
        steps[name] = {"stage": "join", "texts": ["a"], "seconds": 0.2, "separator": name}
        steps[name] |= {"trace": str(trace), "company": 2}
    run(store, steps, ThreadExecutor(cpus=2))
    events = [(float(at), kind == "begins") for _, kind, at, _ in map(str.split, trace.read_text().splitlines())]
    depth, deepest = 0, 0
    for _, begins in sorted(events):
        depth += 1 if begins else -1
        deepest = max(deepest, depth)
    assert deepest == 2


def test_a_failure_lets_siblings_finish_and_marks_dependants(store: Store) -> None:
    summary, runner, _ = run(store, six_steps(e__fail="stage", e__seconds=0.05))
    assert states(summary) == "a:done b:done c:done d:done e:failed f:done"
    assert runner.exit_code == 1
    summary, _, _ = run(store, six_steps(c__fail="bug"))
    found = {step.name: step for step in summary.steps}
    assert found["c"].state == "cached"  # `fail` says how, not what: c is there already
    summary, _, _ = run(store, six_steps(c__fail="bug", c__separator="+"))
    found = {step.name: step for step in summary.steps}
    assert states(summary) == "a:cached b:cached c:failed d:skipped e:skipped f:skipped"
    assert found["c"].error == "ValueError('a bug')"
    assert found["d"].reason == "needs c, which failed"
    assert store.record(found["c"].fingerprint) is None
    assert found["c"].frames.endswith('raise ValueError("a bug")')
    assert found["c"].traceback
    assert "a bug" in found["c"].traceback.read_text()


def test_the_same_command_resumes_after_a_failure(store: Store) -> None:
    run(store, six_steps(d__fail="stage"))
    summary, runner, _ = run(store, six_steps())
    assert states(summary) == "a:cached b:cached c:cached d:done e:done f:done"
    assert runner.exit_code == 0


def test_retries(store: Store) -> None:
    summary, _, recorded = run(store, six_steps(c__fail="once", c__retries=1))
    assert summary.state == "done"
    assert any("Tries again" in note for note in recorded.notes)


def test_a_result_that_differs_runs_what_was_made_of_the_old_one(store: Store) -> None:
    steps = six_steps(c__chance=True)
    run(store, steps)
    summary, _, _ = run(store, steps, force=["c"])
    assert states(summary) == "a:cached b:cached c:done d:done e:done f:done"
    steps = six_steps()
    run(store, steps, force=["d"])
    summary, _, _ = run(store, steps, force=["d"])
    assert states(summary) == "a:cached b:cached c:cached d:done e:cached f:cached"


@pytest.mark.parametrize("step", "abcd")
def test_damage_is_repaired_before_anything_reads_it(store: Store, step: str) -> None:
    first, _, _ = run(store, six_steps())
    before = {step.name: text(store, first, step.name) for step in first.steps if step.name != "f"}
    record = store.latest("demo", step)
    assert record is not None
    file = Path(store.uri(record)) / "text.txt"
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the old time put back: the inode's change time tells
    summary, _, _ = run(store, six_steps())
    found = {found.name: found for found in summary.steps}
    assert found[step].state == "done"
    assert found[step].reason == "damaged: text.txt has other content than what was written"
    assert all(found[other].state == "cached" for other in "abcdef" if other != step)
    assert {name: text(store, summary, name) for name in before} == before


def test_damage_after_planning_is_noticed_when_the_input_is_read(store: Store) -> None:
    run(store, six_steps(), until=["c"])

    class Late(ThreadExecutor):
        def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
            if step == "d":
                record = store.latest("demo", "c")
                assert record is not None
                file = Path(store.uri(record)) / "text.txt"
                file.chmod(0o644)
                file.write_text("bad")
            super().start(step, work, demand)

    summary, _, _ = run(store, six_steps(), Late())
    found = {step.name: step for step in summary.steps}
    assert found["d"].state == "failed"
    assert "step c" in error_of(found["d"])
    assert "text.txt has other content" in error_of(found["d"])
    assert "Run the same command again" in error_of(found["d"])
    summary, _, _ = run(store, six_steps())
    assert states(summary) == "a:cached b:cached c:done d:done e:done f:done"


def test_of_two_runs_one_computes_and_the_other_takes_the_result(store: Store, tmp_path: Path) -> None:
    """The other run is represented by its lease; it finishes as soon as this run says that it waits for it."""
    trace = tmp_path / "trace"
    steps = six_steps(c__trace=str(trace))
    plan = make(build("demo", steps), store, set("abc"), ())
    other = Leases(store.files, 30.0, "the-other-run")
    assert other.acquire(plan.steps["c"].fingerprint) is None

    class FinishesTheOther(Recorder):
        def step_message(self, message: Message) -> None:
            super().step_message(message)
            if "waits for run the-other-run" in message.body.get("text", ""):
                put(store, plan, "c", "the-other-run", "a b", {name: store.latest("demo", name) for name in "ab"})
                other.close()

    summary, _, recorded = run(store, steps, observer=FinishesTheOther())
    found = {step.name: step for step in summary.steps}
    assert found["c"].state == "cached"
    assert found["c"].reason == "by run the-other-run, meanwhile"
    assert any("waits for run the-other-run" in note for note in recorded.notes)
    assert not trace.exists()
    assert summary.state == "done"


def test_a_full_disk_fails_the_step_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.store import store as module

    def full(directory: Path) -> None:
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(module, "sync_tree", full)
    summary, _, _ = run(store, six_steps())
    assert states(summary) == "a:failed b:failed c:skipped d:skipped e:skipped f:skipped"
    assert "No space left on device" in error_of(summary_of(summary, "a"))
    assert not list((store.config.local_root / "staging").iterdir())
    assert list(store.records()) == []
    monkeypatch.undo()


def test_unselected_steps_do_not_run(store: Store) -> None:
    summary, _, recorded = run(store, six_steps(), until=["c"])
    assert states(summary) == "a:done b:done c:done d:unselected e:unselected f:unselected"
    assert summary.state == "done"
    assert not any(event.startswith("d ") for event in recorded.events)


def test_steps_that_are_the_same_are_computed_once(store: Store, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    steps: dict[str, dict[str, Any]] = {"a": {"stage": "make"}}
    for name in "bc":
        steps[name] = {"stage": "join", "texts": ["a"], "seconds": 0.3, "trace": str(trace)}
    summary, _, _ = run(store, steps)
    found = {step.name: step for step in summary.steps}
    assert (found["b"].state, found["c"].state) == ("done", "cached")
    assert found["c"].reason == "the same as b"
    assert found["c"].artifact == found["b"].artifact
    assert trace.read_text().count("begins") == 1
    assert states(run(store, steps)[0]) == "a:cached b:cached c:cached"


def test_who_is_waited_for_is_said_once(store: Store) -> None:
    plan = make(build("demo", six_steps()), store, set("a"), ())
    other = Leases(store.files, 30.0, "the-other-run")
    assert other.acquire(plan.steps["a"].fingerprint) is None
    threading.Timer(1.6, other.close).start()
    _, _, recorded = run(store, six_steps(), until=["a"])
    assert len([note for note in recorded.notes if "waits for run the-other-run" in note]) == 1


@pytest.mark.parametrize("operation", ["commit", "record"])
def test_a_store_that_fails_in_between_fails_the_step_and_its_siblings_finish(
    store: Store, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    steps = {"a": {"stage": "make", "text": "a"}, "b": {"stage": "make", "text": "b", "retries": 1}}
    steps |= {"c": {"stage": "join", "texts": ["a"]}, "d": {"stage": "join", "texts": ["b"]}}
    graph = build("demo", steps)
    plan = make(graph, store, set(steps), ())
    fingerprints = {plan.steps[name].fingerprint for name in "ab"}
    whole = getattr(store, operation)
    failed: set[str] = set()

    def fail_once(about: object) -> object:
        fingerprint = getattr(about, "fingerprint", about)
        if fingerprint in fingerprints - failed and threading.current_thread() is threading.main_thread():
            failed.add(fingerprint)
            raise OSError(28, "No space left on device", "records")
        return whole(about)

    executor = ThreadExecutor()
    runner = Runner(
        plan, store, executor, Provenance("run", "bloomline run", None, False, {}), "", [recorded := Recorder()]
    )
    monkeypatch.setattr(store, operation, fail_once)
    summary = runner.run()
    assert states(summary) == "a:failed b:done c:skipped d:done"
    assert "records: No space left on device" in error_of(summary_of(summary, "a"))
    assert any("Tries again" in note for note in recorded.notes)
    assert runner.exit_code == 1
    assert not list((store.config.local_root / "leases").iterdir())


def test_a_figure_that_cannot_be_kept_ends_nothing(store: Store) -> None:
    class InTheWay(ThreadExecutor):
        def start(self, step: str, work: Work, demand: Demand, deliver: Deliver | None = None) -> None:
            for run_directory in (store.config.state / "runs").iterdir():
                (run_directory / "pages").write_text("a file where a directory should be")
            super().start(step, work, demand)

    (store.config.state / "runs" / "run").mkdir(parents=True)
    plan = make(build("demo", six_steps()), store, set("abcdef"), ())
    provenance = Provenance("run", "bloomline run", None, False, {})
    summary = Runner(plan, store, InTheWay(), provenance, "", [recorded := Recorder()]).run()
    assert summary.state == "done"
    assert any(note.startswith("f: page count.html: ") for note in recorded.notes)


def test_content_that_changes_while_a_step_runs_gives_no_artifact(store: Store, tmp_path: Path) -> None:
    """The result may be of the old content, of the new, or of both: it must not be found under either."""
    file = tmp_path / "given.txt"
    file.write_text("old")

    class Changes(ThreadExecutor):
        def start(self, step: str, *rest: Any, **named: Any) -> None:
            file.write_text("new")
            super().start(step, *rest, **named)

    steps = {"a": {"stage": "make", "source": {"path": str(file)}}}
    summary, runner, _ = run(store, steps, Changes())
    assert (runner.exit_code, states(summary)) == (1, "a:failed")
    assert "the content of source changed" in error_of(summary.steps[0])
    assert "Run the same command again" in error_of(summary.steps[0])
    assert store.latest("demo", "a") is None
    summary, _, _ = run(store, steps)
    assert text(store, summary, "a") == "new"


def test_what_a_stage_sends_can_always_be_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file name that is not UTF-8 has lone surrogates in Python. They become replacement characters."""

    def odd(stage: demo.Make, ctx: Context) -> demo.Text:
        (ctx.out / "text.txt").write_text("x")
        ctx.highlight("caf\udce9", "reads caf\udce9.txt")
        ctx.note("caf\udce9")
        ctx.page("page.md", "caf\udce9")
        ctx.metrics({"caf\udce9": 1.0})
        if stage.times == 2:
            raise StageError("can't read caf\udce9.txt")
        return demo.Text(ctx.out)

    monkeypatch.setattr(demo.Make, "run", odd)
    monkeypatch.setattr(demo.Text, "describe", lambda text: {"source": "caf\udce9"})
    summary, _, observer = run(store, {"a": {"stage": "make"}})
    assert summary.state == "done", summary.steps
    record = store.latest("demo", "a")
    assert record is not None
    assert record.highlights == {"caf\N{REPLACEMENT CHARACTER}": "reads caf\N{REPLACEMENT CHARACTER}.txt"}
    assert observer.notes == ["a: caf\N{REPLACEMENT CHARACTER}"]
    failed, _, _ = run(store, {"a": {"stage": "make", "times": 2}})
    assert error_of(summary_of(failed, "a")) == "can't read caf\N{REPLACEMENT CHARACTER}.txt"
