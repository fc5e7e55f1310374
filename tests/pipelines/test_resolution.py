"""Interpolations have limits, and what is shown of them does not hold values of the environment."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from pipelines import config, resolution
from pipelines.errors import ConfigError
from pipelines.resolution import resolved, resolved_without_environment


def doubled(value: str, levels: int, last: Any) -> dict[str, Any]:
    """A configuration in which each value stands twice for the next."""
    return {f"x{level}": value.replace("NEXT", f"${{x{level + 1}}}") for level in range(levels)} | {f"x{levels}": last}


@pytest.mark.parametrize(
    "values",
    [
        doubled("NEXTNEXT", 40, "text"),
        {"x": "${y}" * 2000, "y": "a" * 1_000_000},
        {f"x{level}": [f"${{x{level + 1}}}"] * 2 for level in range(40)} | {"x40": 1},
        {"x": ["${y}"] * 300, "y": list(range(1000))},
        {"x": ["${oc.create:${y}}"] * 300, "y": {f"k{number}": 1 for number in range(1000)}},
    ],
)
def test_more_than_a_configuration_holds_is_one_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"interpolations that stand for more than .*; expected fewer"):
        resolved(OmegaConf.create(values))


def test_a_configuration_of_ordinary_size_is_resolved() -> None:
    values = {f"k{number}": "${base.size}" for number in range(1000)} | {"base": {"size": 3}, "copy": "${base}"}
    assert resolved(OmegaConf.create(values))["copy"] == {"size": 3}


def test_limits_end_with_the_resolution() -> None:
    composed = OmegaConf.create({f"k{number}": "${base}" for number in range(8_000)} | {"base": 1})
    assert resolved(composed) == resolved(composed)
    assert resolution.VALUES < 4 * 8_000 * resolution.VALUES_OF_ONE


def test_interpolations_without_end() -> None:
    with pytest.raises(ConfigError):
        resolved(OmegaConf.create({"a": "${b}", "b": "${a}"}))


def test_references_to_the_environment_are_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "value")
    composed = OmegaConf.create(
        {"a": "${oc.env:MINE}", "b": "${a}/x", "c": "${oc.env:OTHER,default}", "d": {"e": "${size}"}, "size": 3}
    )
    assert resolved(composed)["b"] == "value/x"
    assert resolved_without_environment(composed) == {
        "a": "${oc.env:MINE}",
        "b": "${oc.env:MINE}/x",
        "c": "${oc.env:OTHER,default}",
        "d": {"e": 3},
        "size": 3,
    }


def test_a_structure_that_depends_on_the_environment_is_not_resolved_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "small")
    composed = OmegaConf.create({"a": "${sizes.${oc.env:SIZE}}", "sizes": {"small": 1}})
    assert resolved(composed)["a"] == 1
    assert resolved_without_environment(composed)["a"] == "${sizes.${oc.env:SIZE}}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps.a.text=" + "[" * 5000 + "]" * 5000, "a value below 64 others"),
        ("steps.a.text=" + "x" * 200_000, "characters; expected at most 100,000"),
        ("steps." + ".".join("a" * 100) + "=1", "a value below 64 others"),
        ("store.options.secret=***", "which stands for what is not shown; expected the value itself"),
        ("store.root=s3://***@bucket", "expected the value itself"),
    ],
)
def test_overrides_that_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        config.prepare([override])
    assert said in str(caught.value)


def test_overrides_that_are_accepted() -> None:
    given = ["steps.a.text='***'", "steps.a.paths=[data/**/*.txt]", "store.root=http://h/?page=***"]
    assert config.prepare(given)[1:2] == ["++steps.a.paths=[data/**/*.txt]"]


STEPS = {"a": {"size": 3}, "b": {"from": ["${port}"]}, "c": {"size": "???"}}


@pytest.mark.parametrize(
    ("others", "literal"),
    [
        ({"port": "${oc.env:PORT,8000}", "store": {"root": "${port}"}}, {"a"}),
        ({"port": 1, "copy": "${steps.a.size}"}, set()),
        ({"port": 1, "copy": "${stepsize}"}, {"a"}),
        ({"port": 1, "copy": "${.port}"}, set()),
        ({"port": 1, "key": "steps", "copy": "${${key}.a}"}, set()),
        ({"port": 1, "copy": "${oc.select:steps.a}"}, set()),
    ],
)
def test_steps_are_literal_unless_something_may_refer_to_them(others: dict[str, Any], literal: set[str]) -> None:
    assert resolution.literal_steps({**others, "steps": STEPS}).keys() == literal


def test_no_steps_are_no_literal_ones() -> None:
    assert resolution.literal_steps({"port": 1}) == {}
    assert resolution.literal_steps({"port": 1, "steps": ["a"]}) == {}
