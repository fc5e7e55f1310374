"""Records carry every value that a stage may report; one that can't be read is named, and its files are kept."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import artifacts
from pipelines.artifacts import Scope
from pipelines.graph import build
from pipelines.plan import Plan, make
from pipelines.store import Record, Store, StoreError
from pipelines.store.json_values import plain
from tests.pipelines import demo
from tests.pipelines.demo import six_steps
from tests.pipelines.support import put, run, states

pytestmark = pytest.mark.usefixtures("demo_stages")

SCOPE = Scope("demo", named=False)


@dataclass
class Opaque:
    """A value that JSON has no form for."""


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**4000), max_value=10**4000),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.builds(Opaque),
    st.builds(Path, st.just("a")),
    st.floats(width=32).map(np.float32),
    st.integers(-5, 5).map(np.int64),
    st.lists(st.floats(width=32), max_size=3).map(np.array),
)
keys = st.one_of(st.text(st.characters(codec=None)), st.integers(), st.tuples(st.integers()), st.none())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(keys, inner), st.tuples(inner), st.sets(st.integers())),
    max_leaves=8,
)


@given(values)
def test_any_value_is_carried_there_and_back(value: object) -> None:
    kept = plain(value)
    assert same(json.loads(json.dumps(kept).encode()), kept)
    assert same(plain(kept), kept)


def same(one: Any, other: Any) -> bool:
    """Equal, with types and NaN."""
    return json.dumps(one) == json.dumps(other) and repr(one) == repr(other)


@pytest.fixture
def record(store: Store) -> Record:
    return put(store, plan_of(store), "a", "run", "a")


def plan_of(store: Store) -> Plan:
    return make(build("demo", six_steps()), store, "abcdef")


@given(value=values, number=st.floats())
def test_a_record_is_read_back_as_it_was_written(value: object, number: float) -> None:
    record = Record.model_validate_json(RECORD).model_copy(
        update={"describe": plain({"it": value}), "metrics": {"loss": number}, "highlights": plain({"a": str(value)})}
    )
    again = Record.model_validate_json(record.model_dump_json())
    assert repr(again) == repr(record)


RECORD = json.dumps(
    {
        **{name: {} for name in ("payload", "config", "inputs", "metrics", "highlights", "describe", "versions")},
        **dict.fromkeys(("pipeline", "step", "stage", "artifact", "location", "run_id"), "x"),
        **dict.fromkeys(("headline", "tracking_run_id", "git_commit")),
        "fingerprint": "0" * 64,
        "files": [],
        "created": 0,
        "seconds": 0,
        "git_dirty": False,
    }
)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_step_that_reports_odd_values_is_found_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    def odd(self: demo.Make, ctx: Any) -> demo.Text:
        (ctx.out / "text.txt").write_text("x")
        ctx.metrics({"loss": number, "caf\udce9": np.float32(2)})
        ctx.highlight("sample \udce9", "caf\udce9")
        ctx.highlight("count", 3)
        ctx.note("reads caf\udce9.txt")
        ctx.page("page.md", "caf\udce9")
        return demo.Text(ctx.out)

    monkeypatch.setattr(demo.Make, "run", odd)
    monkeypatch.setattr(
        demo.Text, "describe", lambda self: {"share": np.float64(number), 1: b"x", "name": "caf\udce9", "n": 10**400}
    )
    steps = {"a": {"stage": "make"}}
    first, _, told = run(store, steps)
    assert states(first) == "a:done"
    assert told.notes == ["a: reads caf\ufffd.txt"]
    assert states(run(store, steps)[0]) == "a:cached"
    record = store.latest("demo", "a")
    assert record is not None
    assert repr(record.metrics["loss"]) == repr(number)
    assert record.metrics["caf\ufffd"] == 2
    assert record.highlights == {"sample \ufffd": "caf\ufffd", "count": "3"}
    assert repr(record.describe["share"]) == repr(number)
    assert store.unreadable_records() == {}


@pytest.mark.parametrize("value", ["many", None, 10**400, np.zeros(3)])
def test_a_metric_that_is_not_a_number_is_refused_by_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    def odd(self: demo.Make, ctx: Any) -> demo.Text:
        ctx.metrics({"loss": value})
        raise AssertionError("not refused")

    monkeypatch.setattr(demo.Make, "run", odd)
    summary, _, _ = run(store, {"a": {"stage": "make"}})
    assert "The metric 'loss' got a value of type" in str(summary.steps[0].error)


def test_what_could_not_be_read_back_is_not_written(store: Store, record: Record) -> None:
    odd = record.model_copy(update={"fingerprint": "f" * 64, "metrics": {"loss": None}})
    with pytest.raises(StoreError, match=r"record of step a can't be written: metrics\.loss"):
        store.commit(odd)
    with pytest.raises(StoreError, match="can't be written"):
        store.commit(record.model_copy(update={"fingerprint": "f" * 64, "highlights": {"a": "\udce9"}}))
    assert store.files.names("records") == [f"{record.fingerprint}.json"]


HOSTILE = "\x1b]0;gone\x07\x9b2J\u202ex\u2066\nundamaged  forged"


def test_what_is_printed_of_artifacts_does_not_control_the_terminal(
    store: Store, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = record.model_copy(
        update={
            "fingerprint": "f" * 64,
            **dict.fromkeys(("step", "stage", "artifact", "run_id", "pipeline", "git_commit"), HOSTILE),
            **{name: {HOSTILE: HOSTILE} for name in ("config", "describe", "highlights")},
            "metrics": {HOSTILE: 1.0},
        }
    )
    store.commit(odd)
    artifacts.show_list(store, [], SCOPE)
    artifacts.show(store, ["f" * 64], SCOPE)
    artifacts.verify(store, ["f" * 64], SCOPE)
    told = capsys.readouterr().out
    assert not {sign for sign in told if not sign.isprintable()} - {"\n"}
    assert told.count("gone") >= 12
    assert not [line for line in told.splitlines() if line.startswith("undamaged  forged")]


def test_an_artifact_is_shown_with_sizes_for_people_in_lines_that_fit(
    store: Store, record: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    update = {
        "fingerprint": "f" * 64,
        "config": {"max_bytes": 50_000, "suffixes": [f".suffix{number}" for number in range(60)]},
        "describe": {"bytes": 3 << 20, "kept": {"documents": 29, "bytes": 1536}},
        "metrics": {"memory_process_bytes": 5.0 * 2**30},
    }
    store.commit(record.model_copy(update=update))
    artifacts.show(store, ["f" * 64], SCOPE)
    lines = capsys.readouterr().out.splitlines()
    for wanted in (
        "  bytes  3.0 MiB",
        "  kept   documents 29, bytes 1.5 KiB",
        "  memory_process_bytes  5.0 GiB",
        "  max_bytes  50,000",
    ):
        assert wanted in lines
    first = next(index for index, line in enumerate(lines) if line.startswith("  suffixes   .suffix0; .suffix1"))
    following = [line for line in lines[first:] if ".suffix" in line]
    assert len(following) > 5
    assert all(line.startswith(" " * 13 + ".suffix") for line in following[1:])
    assert max(map(len, following)) <= 80


@pytest.mark.parametrize(
    ("width", "said"), [(80, "No room for Makes, Made, By run"), (120, "No room for By run"), (150, "")]
)
def test_the_list_names_the_columns_for_which_there_is_no_room(
    store: Store,
    record: Record,
    width: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    artifacts.show_list(store, [], SCOPE)
    out = capsys.readouterr().out
    assert said in out
    assert ("No room" in out) == bool(said)


GARBAGE = [b"", b"{", b"null", b'{"fingerprint": 3}', b"\xff\xfe", RECORD.encode()]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_unreadable_record_is_named_and_its_files_are_kept(
    store: Store, record: Record, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"records/{record.fingerprint}.json"
    store.files.write(name, garbage)
    step = plan_of(store).steps["a"]
    assert (step.state, name in step.reason) == ("run", True)
    artifacts.show_list(store, [], SCOPE)
    assert artifacts.verify(store, [], SCOPE) == 1
    artifacts.collect(store, ["unused", "scratch", "remove"], SCOPE)
    told = capsys.readouterr().out
    assert told.count(name) == 3
    assert "1 artifacts, 1 damaged" in told
    assert "0 B were freed" in told
    assert store.files.names(record.location) == ["text.txt"]
    again = put(store, plan_of(store), "a", "run", "a")
    assert artifacts.verify(store, [], SCOPE) == 0
    artifacts.collect(store, [], SCOPE)
    assert store.places() == [again.location]


def test_files_that_are_no_records_are_no_damage(store: Store, record: Record) -> None:
    store.files.write(f"records/{record.fingerprint}.json~", b"an editor's copy")
    store.files.write("records/notes.txt", b"x")
    assert list(store.records()) == [record]
    assert store.unreadable_records() == {}


@pytest.mark.parametrize("content", [b"../../etc/passwd", b"\0", b"\xff", b""])
def test_a_damaged_name_of_the_latest_artifact_is_ignored(store: Store, record: Record, content: bytes) -> None:
    store.files.write("latest/demo/a.json", content)
    assert store.latest("demo", "a") is None
