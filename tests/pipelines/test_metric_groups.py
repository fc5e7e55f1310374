"""Tests of the groups of metrics."""

from __future__ import annotations

import pytest

from pipelines.metric_groups import group_of, grouped


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("loss", "loss"),
        ("validation_loss", "loss"),
        ("memory_process_peak_bytes", "memory"),
        ("sent_bytes_per_step", "traffic"),
        ("tokens_per_second", "speed"),
        ("seconds_communication", "speed"),
        ("model_flops_utilisation", "speed"),
        ("learning_rate", "optimizer"),
    ],
)
def test_a_metric_is_grouped_by_the_form_of_its_name(name: str, group: str) -> None:
    assert group_of(name) == group
    assert grouped(name) == f"{group}/{name}"


@pytest.mark.parametrize(("name", "group"), [("validation_loss/python", "validation_loss"), ("a/b/c", "a/b")])
def test_a_name_that_states_its_group_stays(name: str, group: str) -> None:
    assert group_of(name) == group
    assert grouped(name) == name


@pytest.mark.parametrize("name", ["mrr", "lossless", "parameters", ""])
def test_any_other_name_has_no_group(name: str) -> None:
    assert group_of(name) == ""
    assert grouped(name) == name
