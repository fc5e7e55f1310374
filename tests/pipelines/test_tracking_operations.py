"""What MLflow receives: its configuration, the operations, and the spool that holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.tracking import operations
from pipelines.tracking.spool import Spool, leftovers
from pipelines.tracking.tracker import Tracking
from pipelines.tracking.tracking_config import TrackingConfig
from tests.pipelines import samples

REPOSITORY = Path(__file__).parents[2]

# -- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "server"},
        {"kind": "server", "uri": "sqlite:///x.db"},
        {"kind": "server", "uri": "http://me:secret@host"},
        {"kind": "local", "uri": "http://host"},
        {"kind": "local", "close_timeout_s": 0},
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrackingConfig.model_validate(values)


@pytest.mark.parametrize("name", ["local", "server"])
def test_the_files_of_conf_are_valid(name: str) -> None:
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / "tracking" / f"{name}.yaml"))
    assert TrackingConfig.model_validate(values).kind == name


# -- operations ---------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=300), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=300), json_values, max_size=5))
@example({"": {"": {"0": None}}})
@example({"a/../..b/./": {".": "..", "/": 1}})
def test_parameters_keep_to_mlflows_limits(config: dict[str, Any]) -> None:
    from mlflow.utils.validation import _validate_param

    for name, value in operations.flat(config).items():
        _validate_param(name, value)  # type: ignore[no-untyped-call]  # MLflow does not annotate it


def test_a_long_parameter_is_cut_and_says_so() -> None:
    flat = operations.flat({"a": {"b": "y" * 7000}, "c": [1, 2]})
    assert len(flat["a.b"]) == operations.MAX_PARAMETER
    assert flat["a.b"].endswith(operations.CUT)
    assert flat["c"] == "[1, 2]"


def test_a_value_that_is_not_a_number_is_left_out_and_the_rest_is_kept() -> None:
    points = operations.metric_points({"loss@1": 1.5, "oops": "much"}, 3, 2.0)  # type: ignore[dict-item]
    assert points == [("loss_1", 1.5, 2000, 3)]


def test_the_registered_model_is_the_nearest_upstream(tmp_path: Path) -> None:
    sample = samples.run(tmp_path)
    made = {step.name: step for step in sample.steps}
    plan = samples.step("plan", ("quantize",))
    deploy = replace(made["deploy"], inputs=("plan",))
    found = [
        operation
        for operation in operations.step_finished(deploy, [], made | {"plan": plan}, 0)
        if operation["op"] == "register"
    ]
    assert [operation["fingerprint"] for operation in found] == [made["quantize"].fingerprint]


# -- the spool ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(), max_size=30), st.data())
def test_every_operation_is_read_once_however_often_the_reader_restarts(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("spool") / "spool"
    spool = Spool.open(directory)
    assert spool
    for number in numbers:
        spool.append({"number": number})
    read: list[int] = []
    while unsent := spool.unsent():
        taken = data.draw(st.integers(1, len(unsent)))
        read += [operation["number"] for operation, _ in unsent[:taken]]
        spool.acknowledge(unsent[taken - 1][1])
        if data.draw(st.booleans()):
            spool._lock.release()  # as when the process dies
            spool = Spool.open(directory)
            assert spool
    spool.close()
    assert read == numbers
    assert not directory.exists()


def test_torn_and_damaged_lines_are_skipped(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool")
    assert spool
    spool.append({"number": 1})
    with open(tmp_path / "spool" / "operations.jsonl", "ab") as log:
        log.write(b'{"number": \xff 2}\n{"number": 3')
    assert [operation for operation, _ in spool.unsent()] == [{"number": 1}, {}]


def test_a_spool_in_use_belongs_to_nobody_else(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "runs" / "a" / "spool")
    assert spool
    spool.append({"number": 1})
    assert Spool.open(tmp_path / "runs" / "a" / "spool") is None
    assert list(leftovers(tmp_path)) == []
    spool.close()
    assert [left.pending() for left in leftovers(tmp_path)] == [1]


def test_the_page_of_a_run_is_known_once_the_server_has_given_it_an_id(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool")
    assert spool is not None
    server = TrackingConfig(kind="server", uri="http://mlflow:5000/base/")
    tracking = Tracking(server, tmp_path, spool)
    assert tracking.url == "http://mlflow:5000/base"
    spool.ids |= {"experiment": "1", "runs": {"": "abc"}}
    assert tracking.url == "http://mlflow:5000/base/#/experiments/1/runs/abc"
    assert Tracking(TrackingConfig(), tmp_path, spool).url is None
    spool.close()
