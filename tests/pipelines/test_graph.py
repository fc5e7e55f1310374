"""Typed wiring: everything that can be wrong is refused with the key, the value, what was expected and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BloomlineError, ConfigError
from pipelines.graph import build, select
from tests.pipelines.demo import Number, Text, six_steps
from tests.support import run_stage

pytestmark = pytest.mark.usefixtures("demo_stages")


def refusal(steps: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build("demo", steps)
    return str(caught.value)


def test_builds_a_graph_in_an_order_in_which_it_can_run() -> None:
    graph = build("demo", dict(reversed(six_steps().items())))
    order = list(graph.steps)
    for step in graph.steps.values():
        assert all(order.index(source) < order.index(step.name) for source in step.inputs)
    assert graph.steps["f"].produces is Number
    assert graph.steps["c"].produces is Text
    assert [(key, edge.step) for key, edge in graph.steps["c"].edges] == [("texts.0", "a"), ("texts.1", "b")]


def test_a_misspelt_step_name_gets_a_suggestion() -> None:
    steps = {"corpus": {"stage": "make", "text": "a"}, "corpsu": {"text": "b"}}
    said = refusal(steps)
    assert "steps.corpsu.stage: missing; expected the name of a stage, or the key of a step that is declared." in said
    assert "Did you mean 'corpus'?" in said


def test_a_config_within_a_stage_may_hold_an_edge(tmp_path: Path) -> None:
    graph = build("demo", six_steps(d__frames=[{"width": 2}, {"around": "a", "width": 2}]))
    assert [(key, edge.step) for key, edge in graph.steps["d"].edges] == [
        ("texts.0", "c"),
        ("frames.1.around", "a"),
    ]
    for name, text in (("a", "|"), ("c", "joined")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(text)
    made, _ = run_stage(graph.steps["d"].stage, {name: Text(tmp_path / name) for name in "ac"}, tmp_path / "d")
    assert made.text == "||joined||"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"a__stage": "mak"}, ["steps.a.stage", "'mak'", "Did you mean 'make'?"]),
        ({"a__stage": None}, ["steps.a.stage", "missing", "the name of a stage"]),
        ({"a__txet": "x"}, ["steps.a.txet", "unknown field", "Did you mean 'text'?"]),
        ({"a__times": "many"}, ["steps.a.times", "'many'", "integer"]),
        ({"a__times": 0}, ["steps.a.times", "0", "greater than 0"]),
        ({"a__times": True}, []),
        ({"a__text": 3}, ["steps.a.text", "3", "string"]),
        ({"a__text": ""}, ["steps.a.text", "a string with a length of at least 1."]),
        ({"a__mode": "fnacy"}, ["steps.a.mode", "'fnacy'", "'plain' or 'fancy'"]),
        ({"a__style": {"uper": True}}, ["steps.a.style.uper", "unknown field", "Did you mean 'upper'?"]),
        ({"a__style": {"upper": "maybe"}}, ["steps.a.style.upper", "'maybe'", "true or false"]),
        ({"d__texts": ["cc"]}, ["steps.d.texts.0", "no step 'cc'", "a step that makes a Text"]),
        ({"e__texts": ["f"]}, ["steps.e.texts.0", "'f' makes a Number", "a step that makes a Text", "Steps that do: "]),
        ({"f__text": 7}, ["steps.f.text", "7", "the name of a step that makes a Text"]),
        ({"d__frames": [{"around": "ff"}]}, ["steps.d.frames.0.around", "no step 'ff'", "a step that makes a Text"]),
        ({"d__frames": [{"around": "e"}]}, ["a cycle", "d -> e -> d"]),
        ({"d__texts": ["e"]}, ["a cycle", "d -> e -> d"]),
        ({"f__factor": "inf?"}, ["steps.f.factor", "expected a number."]),
        ({"a__retries": -1}, ["steps.a.retries", "-1", "a number of at least 0."]),
        ({"a__resources": {"cpu": 1}}, ["steps.a.resources.cpu", "unknown field", "Did you mean 'cpus'?"]),
    ],
)
def test_refuses_what_is_wrong_and_says_what_to_do(changed: dict[str, Any], said: list[str]) -> None:
    if not said:
        build("demo", six_steps(**changed))
        return
    message = refusal(six_steps(**changed))
    for part in said:
        assert part in message


def test_refuses_a_missing_input() -> None:
    steps = six_steps()
    del steps["f"]["text"]
    assert "steps.f.text: missing; expected the name of a step that makes a Text" in refusal(steps)


def test_reports_every_problem_at_once() -> None:
    message = refusal(six_steps(a__times=0, b__txet="x", d__texts=["zz"]))
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("name", ["A", "1a", "a-b", "a/b", "..", "a b", "é"])
def test_refuses_a_step_name_that_cannot_be_a_file_name(name: str) -> None:
    assert repr(name) in refusal({name: {"stage": "make"}})


def test_refuses_a_pipeline_without_steps() -> None:
    assert "at least one" in refusal({})


def test_selects_by_from_until_and_only() -> None:
    graph = build("demo", six_steps())
    assert select(graph, [], [], []) == set("abcdef")
    assert select(graph, ["c"], [], []) == set("cdef")
    assert select(graph, [], ["d"], []) == set("abcd")
    assert select(graph, ["c"], ["e"], []) == set("cde")
    assert select(graph, [], [], ["a", "f"]) == {"a", "f"}
    with pytest.raises(ConfigError, match="from: 'cc'; expected the name of a step"):
        select(graph, ["cc"], [], [])
    with pytest.raises(BloomlineError, match="selection is empty"):
        select(graph, ["e"], ["f"], [])
