"""A store that several people use at the same time, each on a machine of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base import Message
from pipelines import artifacts, collection_rules
from pipelines.artifacts import Scope
from pipelines.graph import build, select
from pipelines.plan import Plan, make
from pipelines.run_history import History
from pipelines.store import Store
from tests.pipelines import demo, samples
from tests.pipelines.support import Recorder, ThreadExecutor, complete, runner_of, s3_config, states

pytestmark = pytest.mark.usefixtures("demo_stages")


class Waiting(Recorder):
    """Lets the other's step `b` end once this run has said that it waits for it."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self._trace = trace

    def step_message(self, message: Message) -> None:
        super().step_message(message)
        if message.step == "b" and "waits for" in message.body.get("text", ""):
            with self._trace.open("a") as trace:
                trace.write("waits while b begins \n")


def test_of_two_who_run_the_same_at_once_on_s3_one_computes(s3: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    steps = {
        "a": {"stage": "make", "text": "shared"},
        "b": {"stage": "join", "texts": ["a"], "trace": str(trace), "company": 2},
    }
    stores = {user: Store(s3_config(s3, "shared", tmp_path / user)) for user in ("ana", "bob")}
    executors = {user: ThreadExecutor() for user in stores}
    runs = {user: runner_of(store, steps, executors[user], Waiting(trace), user) for user, store in stores.items()}
    active = dict(runs)
    with runs["ana"][0], runs["bob"][0]:
        while active:
            active = {user: one for user, one in active.items() if one[0].advance()}
            for user, (runner, _) in active.items():
                for event in executors[user].wait(0.05):
                    runner.receive(event)
    found = {user: states(runner.end()).split()[1] for user, (runner, _) in runs.items()}
    assert sorted(found.values()) == ["b:cached", "b:done"]
    computed, waited = sorted(found, key=lambda user: found[user], reverse=True)
    assert trace.read_text().count("b begins") == 2, "one computed and one waited"
    notes = [note for note in runs[waited][1].notes if note.startswith("b: waits for")]
    assert len(notes) == 1
    assert f" of {computed} (process " in notes[0]
    for store in stores.values():
        records = list(store.records())
        assert [store.inspect(record) for record in records] == [[], []]
        assert {demo.Text(store.open(record)).text for record in records} == {"shared"}
        assert not store.files.names("leases")


def plan_of(store: Store, text: str) -> Plan:
    graph = build("demo", {"a": {"stage": "make", "text": text}})
    return make(graph, store, select(graph, (), (), ()), (), lambda: ThreadExecutor().nodes)


def test_gc_of_one_keeps_what_the_run_of_another_uses(store: Store, tmp_path: Path) -> None:
    hers = plan_of(store, "hers")
    complete(store, hers, "run-of-ana")
    complete(store, plan_of(store, "his"), "run-of-bob")  # the latest now
    fingerprint = hers.steps["a"].fingerprint
    running = samples.run(
        tmp_path, "run-of-ana", state="running", user="ana", steps=(samples.step("a", fingerprint=fingerprint),)
    )
    history = History(store)
    history.run_started(running)

    def collect(*words: str) -> bool:
        """Whether hers is still there after `artifacts gc unused remove`."""
        rules, _ = collection_rules.split(words)
        artifacts.collect(store, ["unused", "remove"], Scope("demo", False, rules))
        return store.record(fingerprint) is not None

    assert collect()
    history.run_finished(samples.run(tmp_path, "run-of-ana", user="ana", steps=running.steps))
    assert collect("user=bob")
    assert not collect("user=ana")
