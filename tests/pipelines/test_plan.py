"""Planning: cached, run or blocked, each with its reason, from only the store and the graph."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from cluster.base import Node
from pipelines import plan as module
from pipelines.graph import build
from pipelines.plan import Plan
from pipelines.store import Store
from stages.base import Demand, Resources
from tests.pipelines import demo
from tests.pipelines.demo import six_steps
from tests.pipelines.support import complete

pytestmark = pytest.mark.usefixtures("demo_stages")

SMALL = Node(cpus=2, gpus=0, memory_bytes=8 << 30, custom={})


def plan(store: Store, selected: Collection[str] = "abcdef", forced: Collection[str] = (), **fields: Any) -> Plan:
    return module.make(build("demo", six_steps(**fields)), store, selected, forced, lambda: [SMALL])


def states(made: Plan) -> str:
    return " ".join(f"{name}:{step.state}" for name, step in made.steps.items())


def test_everything_runs_at_first_and_nothing_after(store: Store) -> None:
    assert {step.reason for step in plan(store).to_run} == {"never run"}
    complete(store, plan(store), run_id="first")
    made = plan(store)
    assert made.to_run == []
    assert {step.reason for step in made.steps.values()} == {"by run first"}


def test_a_changed_field_re_runs_the_step_and_what_follows_and_names_it(store: Store) -> None:
    complete(store, plan(store))
    made = plan(store, d__separator="+")
    assert [step.step.name for step in made.to_run] == ["d", "e", "f"]
    assert made.steps["d"].reason == "separator ' ' -> '+'"
    assert made.steps["e"].reason == "input d changed"
    complete(store, made)
    assert plan(store).to_run == []  # both variants are there


@pytest.mark.parametrize(
    ("damage", "said"),
    [("delete", "text.txt is missing"), ("truncate", "has 0 bytes instead of 1"), ("garbage", "has other content")],
)
def test_a_damaged_file_is_named_and_the_step_re_runs(store: Store, damage: str, said: str) -> None:
    complete(store, plan(store))
    record = plan(store).steps["a"].record
    assert record is not None
    file = store.config.local_root / record.location / "text.txt"
    file.chmod(0o644)
    if damage == "delete":
        file.unlink()
    else:
        file.write_text("" if damage == "truncate" else "?")
    made = plan(store)
    assert [step.step.name for step in made.to_run] == ["a"]
    assert said in made.steps["a"].reason
    assert made.steps["c"].explanation.endswith("if a comes out the same")
    assert made.steps["d"].explanation.endswith("if c comes out the same")


def test_an_artifact_made_of_other_content_is_not_current(store: Store) -> None:
    complete(store, plan(store))
    complete(store, plan(store, forced=["a"]), content={"a": "other"})
    made = plan(store)
    assert [step.step.name for step in made.to_run] == ["c"]
    assert made.steps["c"].reason == "the content of a differs from what this was made from"


def test_selection(store: Store) -> None:
    made = plan(store, selected="ef")
    assert states(made) == "a:unselected b:unselected c:unselected d:unselected e:blocked f:blocked"
    assert "needs d" in made.steps["e"].reason
    assert "use until=e instead" in made.steps["e"].reason
    complete(store, plan(store, selected="abcd"))
    assert states(plan(store, selected="ef")) == "a:cached b:cached c:cached d:cached e:run f:run"


def test_cached_steps_that_follow_the_selected_ones_are_not_selected(store: Store) -> None:
    complete(store, plan(store))
    made = plan(store, selected="abc")
    assert states(made) == "a:cached b:cached c:cached d:unselected e:unselected f:unselected"
    assert made.steps["f"].record is not None, "what is there can be served all the same"


def test_force(store: Store) -> None:
    complete(store, plan(store))
    made = plan(store, forced=["d"])
    assert [(step.step.name, step.reason) for step in made.to_run] == [("d", "forced")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"c__gpus": 1}, "needs 1 GPU, the cluster has 0"),
        ({"c__ranks": 4}, "needs 5 CPUs, the cluster has 2"),
        ({"c__ranks": 1, "c__memory_bytes": 41 << 30}, "needs 41.0 GiB a rank, a node has 8.0 GiB"),
        ({"c__resources": {"cpus": 3}}, "needs 3 CPUs, the cluster has"),
        ({"c__resources": {"custom": {"tpu": 1}}}, "1 tpu"),
    ],
)
def test_what_the_cluster_lacks_blocks(store: Store, fields: dict[str, Any], said: str) -> None:
    made = plan(store, **fields)
    assert [step.step.name for step in made.blocked] == ["c"]
    assert said in made.steps["c"].reason


def test_a_cached_step_asks_nothing_of_the_cluster(store: Store) -> None:
    complete(store, plan(store))

    def nodes() -> list[Node]:
        raise AssertionError("not asked when there is nothing to run")

    made = module.make(build("demo", six_steps(c__gpus=1)), store, "abcdef", (), nodes)
    assert not made.blocked


def test_what_a_stage_reads_outside_the_store_can_block_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.Make, "obstacle", lambda stage: "a text of one b" if stage.text == "b" else None)
    planned = plan(store)
    assert planned.steps["b"].state == "blocked"
    assert planned.steps["b"].reason == "a text of one b"
    assert planned.steps["a"].state == "run"


def test_a_pinned_step_refuses_to_be_changed_or_computed_again(store: Store) -> None:
    complete(store, plan(store))
    pin = plan(store).steps["d"].fingerprint[:12]
    assert plan(store, d__pin=pin).to_run == []
    changed = plan(store, d__pin=pin, d__separator="+")
    assert [step.step.name for step in changed.blocked] == ["d"]
    assert f"pinned to {pin}, but it is now" in changed.steps["d"].reason
    assert "separator ' ' -> '+'. Undo the change, or remove the pin" in changed.steps["d"].reason
    forced = plan(store, forced="d", d__pin=pin)
    assert "it would be computed again: forced. Remove the pin to compute it" in forced.steps["d"].reason
    upstream = plan(store, a__text="other", d__pin=pin)
    assert "input c changed" in upstream.steps["d"].reason
    mistyped = plan(store, d__pin="0" * 12)  # though the artifact is there
    assert "the store has no artifact with that fingerprint" in mistyped.steps["d"].reason
    assert [step.step.name for step in mistyped.blocked] == ["d"]


def test_cpus_and_memory_that_lack_are_named_cpus_first(store: Store) -> None:
    made = plan(store, d__ranks=4, d__memory_bytes=64 << 30)
    assert made.steps["d"].reason.index("CPUs") < made.steps["d"].reason.index("GiB")


def test_a_plan_says_whether_what_may_run_starts_other_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [demo.Make, demo.Join, demo.Count]
    for kind in kinds:
        monkeypatch.setattr(kind, "spawns", kind is demo.Make, raising=False)
    complete(store, plan(store))
    assert not plan(store).spawns  # nothing runs
    assert not plan(store, d__separator="+").spawns
    assert plan(store, a__text="other").spawns
    monkeypatch.setattr(demo.Join, "demand", lambda stage: Demand(task=Resources(gpus=1)))
    graph = build("demo", six_steps(d__separator="+"))
    assert module.make(graph, store, "abcdef").spawns  # only Ray assigns GPUs
