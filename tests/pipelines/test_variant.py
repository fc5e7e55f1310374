"""How a run differs from its pipeline: its parameters and its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import config, variant
from pipelines.formatting import LONGEST_VALUE, short_value
from pipelines.variant import LONGEST_NAME, name, short_keys

pytestmark = pytest.mark.usefixtures("demo_stages")

PIPELINE = """\
# @package _global_
name: small
steps:
  a: {stage: make, text: hello}
  b: {stage: join, texts: [a]}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "small.yaml").write_text(PIPELINE)
    (tmp_path / "conf" / "style").mkdir()
    (tmp_path / "conf" / "style" / "loud.yaml").write_text("upper: true\ncolor: blue\n")
    return tmp_path


def of(*overrides: str) -> tuple[str, dict[str, str]]:
    whole = ["hydra.searchpath=[file://conf]", "pipeline=small", *overrides]
    found = variant.of(config.compose(whole), whole)
    return found.name, dict(found.parameters)


@pytest.mark.usefixtures("here")
def test_every_override_is_a_parameter_and_the_name_has_those_of_the_work() -> None:
    assert of() == ("small", {})
    assert of("cluster=inline", "store.root=x") == ("small", {"cluster": "inline", "store.root": "x"})
    assert of("steps.a.times=2", "steps.b.separator='+'", "++steps.b.seconds=0.5") == (
        "small · times=2 separator=+ seconds=0.5",
        {"a.times": "2", "b.separator": "+", "b.seconds": "0.5"},
    )


@pytest.mark.usefixtures("here")
def test_an_override_that_says_what_the_file_says_is_a_parameter_as_well() -> None:
    assert of("steps.a.text=hello") == ("small · text=hello", {"a.text": "hello"})


@pytest.mark.usefixtures("here")
def test_the_values_of_a_file_that_is_chosen_are_parameters_but_not_in_the_name() -> None:
    assert of("+style@steps.a.style=loud") == (
        "small · style=loud",
        {"a.style": "loud", "a.style.upper": "true", "a.style.color": "blue"},
    )


@pytest.mark.usefixtures("here")
def test_a_pipeline_that_is_not_whole_without_the_overrides_has_the_overrides_as_parameters() -> None:
    Path("conf/pipeline/open.yaml").write_text(PIPELINE.replace("small", "open").replace("hello", "'???'"))
    overrides = ["hydra.searchpath=[file://conf]", "pipeline=open", "steps.a.text=x"]
    assert variant.of(config.compose(overrides), overrides).parameters == {"a.text": "x"}


def test_keys_with_the_same_last_part_are_whole() -> None:
    assert short_keys(["a.steps", "b.steps", "a.rate"]) == {
        "a.steps": "a.steps",
        "b.steps": "b.steps",
        "a.rate": "rate",
    }


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=40))
def test_names_and_values_are_short(overrides: dict[str, str]) -> None:
    assert len(name("pipeline", overrides)) <= LONGEST_NAME
    assert all(len(short_value(value)) <= LONGEST_VALUE for value in overrides.values())


def test_a_long_number_is_rounded_and_a_short_one_is_as_it_was_written() -> None:
    assert [short_value(value) for value in ("1e-3", "0.00123456789", "x" * 30)] == [
        "1e-3",
        "0.001235",
        "x" * 11 + "…" + "x" * 12,
    ]
