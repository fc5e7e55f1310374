"""YAML parsed in C means what it meant in Python, and what no configuration means is refused at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipelines.errors import ConfigError
from pipelines.yaml_loader import checked_yaml

CONF = Path(__file__).parents[2] / "conf"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=8), inner, max_size=3),
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
    with checked_yaml():
        return plain, parsed()


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
def test_it_is_in_use() -> None:
    with checked_yaml():
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


PLACES = [
    ("a:\n\tb: 1", "2:1: a tab; expected YAML. Indent with spaces."),
    ("a: 1\nb: 2\na: 3", "3:1: the key a is there twice (first in line 1)"),
    ("steps:\n  no: {}", "2:3: the key no is read as false; expected a name. Write it in quotes: 'no'."),
    ("steps: {ON: 1}", "1:9: the key ON is read as true"),
    ("a: {~: 1}", "1:5: the key ~ is read as null"),
    (": 1", "1:1: no key"),
    ("12: 1", "1:1: the key 12 is read as a number"),
    ("a: {1e3: 1}", "1:5: the key 1e3 is read as a number"),
    ("{a: 1}: 2", "1:1: a key that is a list or a mapping"),
    ("a: {b: 1\nc: 2", "2:2: no comma or } for a flow mapping that begins in line 1, column 4"),
    ("a: [1", "no comma or ] for a flow sequence that begins in line 1, column 4"),
    ("a: 'x\nb: 1\n", "3:1: the end of the file, and no closing quote for a quoted scalar that begins in line 1, col"),
    ("a: b: c", "1:5: a second colon"),
    ("a: *b", "1:4: an alias of an anchor that is not defined"),
    ("a: [*.txt]", "1:6: an alias or an anchor without a name"),
    ("a: [b, '${c']", "1:8: '${c' is not an interpolation; expected ${KEY} or ${RESOLVER:VALUE}. Write \\${ for"),
    ("a: &b {c: *b}", "1:4: an anchor whose value holds itself"),
    ("<<: 3", "1:5: expected a mapping or list of mappings for merging"),
    ("a: 1\n---\nb: 2", "2:1: a second document"),
    ("- a\n- b", "1:1: a list; expected a mapping"),
    ("a word", "1:1: the value 'a word'; expected a mapping"),
    ("~", "1:1: the value '~'; expected a mapping"),
    ("a: 1\nb: x\0y", "2:5: the control character U+0000"),
    ("a: !secret b", "1:4: the tag !secret"),
    ("a: !!python/object/apply:os.system [x]", "1:4: the tag !!python/object/apply:os.system"),
    ("a: !!python/object/apply:pathlib.Path [x]", "1:4: the tag !!python/object/apply:pathlib.Path"),
    ("a: !!binary aGk=", "1:4: the tag !!binary"),
    ("a: !!int x", "1:4: 'x' is not of the type int that it declares"),
    ("a: !!bool x", "1:4: 'x' is not of the type bool"),
    ("a: 1\ndefaults: x", "2:11: defaults that are not a list"),
    ("defaults:\n- a\n- {b: c, d: e}", "3:3: an entry of the defaults that names no file"),
    ("defaults:\n- 3", "2:3: an entry of the defaults"),
    ("defaults:\n-\n", ": an entry of the defaults"),
    ("defaults:\n- /a: {b: c}", "2:3: an entry of the defaults"),
    ("a: @b", "1:4: a character that begins no value"),
    ("a: " + "[" * 2000, "nesting"),
    ("a: " + "[" * 100 + "]" * 100, "1:67: a value below 64 others"),
]


def bomb(levels: int) -> str:
    """Half a kilobyte that stands for ten to the power of `levels` values."""
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(("text", "said"), [*PLACES, (bomb(9), "6:5: more than 200,000 values")])
def test_what_no_configuration_means_is_refused_at_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with checked_yaml(), pytest.raises(ConfigError) as caught:
        OmegaConf.load(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing", "---\na: 1", "a: &b {c: 1}\nd: {<<: *b}", "a: {'no': 1, \"12\": 2}"])
def test_what_configurations_use_is_the_same(text: str) -> None:
    plain, fast = both(text)
    assert plain == fast


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    with checked_yaml():
        refusal = ""
        try:
            OmegaConf.create(text)
        except ConfigError as error:
            refusal = str(error)
        except OmegaConfBaseException:  # an interpolation that is not in its grammar
            pass
    assert "\n" not in refusal


@given(st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=3))
def test_any_values_are_the_same(value: dict[str, object]) -> None:
    text = yaml.safe_dump({f"k{key}": item for key, item in value.items()}, allow_unicode=True)
    plain, fast = both(text)
    assert plain == fast
