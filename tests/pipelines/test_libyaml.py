"""YAML parsed in C means what it meant in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipelines.libyaml import libyaml

CONF = Path(__file__).parents[2] / "conf"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def both(text: str) -> tuple[object, object]:
    """The value that OmegaConf parses from a text, or the type of its error: without and with libyaml."""

    def parsed() -> object:
        try:
            return OmegaConf.to_container(OmegaConf.create(text))
        except yaml.YAMLError as error:
            return type(error)

    plain = parsed()
    with libyaml():
        return plain, parsed()


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
def test_it_is_in_use() -> None:
    with libyaml():
        from omegaconf import _utils

        assert issubclass(_utils.get_yaml_loader(), yaml.cyaml.CParser)
    assert not issubclass(_utils.get_yaml_loader(), yaml.cyaml.CParser)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_conf_is_the_same(path: Path) -> None:
    plain, fast = both(path.read_text())
    assert plain == fast


@pytest.mark.parametrize(
    "text",
    ["a: 1e-3", "a: 1_000", "a: 2020-01-01", "a: .inf", "a: 1:30", "a: on", "a: ${b}\nb: 0x1f", "a: 'x'\nb: !!str 3"],
)
def test_scalars_are_the_same(text: str) -> None:
    plain, fast = both(text)
    assert plain == fast


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [1", "a: !!python/object:os.system x", "a: b: c"])
def test_refusals_are_the_same(text: str) -> None:
    plain, fast = both(text)
    assert isinstance(plain, type)
    assert plain == fast


@given(st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=3))
def test_any_values_are_the_same(value: dict[str, object]) -> None:
    plain, fast = both(yaml.safe_dump(value, allow_unicode=True))
    assert plain == fast
