"""Tests of the groups of metrics."""

from __future__ import annotations

import pytest

from pipelines.metric_groups import MOST_LEADING, group_of, grouped, leading


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


def test_the_headline_leads_and_then_what_matters_of_training() -> None:
    names = ["memory_weights_bytes", "learning_rate", "loss", "validation_loss", "loss/python", "tokens_per_second"]
    assert leading(names, "validation_loss") == ["validation_loss", "loss", "tokens_per_second"]
    assert leading(names, "learning_rate")[0] == "learning_rate"
    assert leading(names, "absent")[0] == "validation_loss"


def test_metrics_without_a_group_fill_the_places() -> None:
    names = [f"count_{number}" for number in range(9)]
    assert leading(names, "count_5") == ["count_5", *names[:5]]
    assert len(leading(names, None)) == MOST_LEADING
