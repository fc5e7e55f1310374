"""How OmegaConf parses YAML here: with libyaml, in C, and checked before anything is made of it.

OmegaConf's own parser, in Python, takes a quarter of the time of a large composition. OmegaConf has no setting for
another one, so its loader is replaced while a configuration is composed. The replacement is a subclass of OmegaConf's
loader, so values have the same types. It refuses, with the file, the line and the column, what YAML allows and no
configuration means: a key that is read as a truth value, a number or null, a key that is there twice, a tag, a document
that is not a mapping, an interpolation outside its grammar, and more values or levels than a configuration has (aliases
can multiply a few lines).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, Problem
from pipelines.terminal import short_path

LEVELS = 64  # of nested values in one file
VALUES = 200_000  # in one file, those that aliases repeat included
TAGS = ("str", "int", "float", "bool", "null", "seq", "map", "merge", "value")  # of values in JSON, and of `<<` and `=`
TAG = "tag:yaml.org,2002:"


@contextmanager
def checked_yaml() -> Iterator[None]:
    """Within, `OmegaConf.load` and `OmegaConf.create` parse as described above. They raise ConfigError."""
    from omegaconf import _utils

    own = _utils.get_yaml_loader
    _utils.get_yaml_loader = lambda: _loader(own())
    try:
        yield
    finally:
        _utils.get_yaml_loader = own


def _loader(own: Any) -> Any:
    """A loader that makes the same values as `own` from what libyaml parses (where PyYAML was built with it)."""
    import yaml
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    bases: tuple[Any, ...] = (yaml.cyaml.CParser, own) if yaml.__with_libyaml__ else (own,)

    class Loader(*bases):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            if yaml.__with_libyaml__:
                yaml.cyaml.CParser.__init__(self, stream)
                SafeConstructor.__init__(self)
                Resolver.__init__(self)
            else:
                own.__init__(self, stream)

        def get_single_data(self) -> Any:
            try:
                return super().get_single_data()
            except yaml.YAMLError as error:
                raise ConfigError([_syntax_problem(error)]) from None

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _check(node)
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, KeyError, TypeError):  # `!!int x`
                kind = node.tag.removeprefix(TAG)
                raise _refusal(node, f"{node.value!r} is not of the type {kind} that it declares", "a value") from None

    return Loader


def _check(root: Any) -> None:
    """Check a document. Raises ConfigError at the first value that no configuration has."""
    import yaml

    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else f"the value {root.value!r}"
        raise _refusal(root, kind, "a mapping: lines of the form `key: value`")
    _check_defaults(root)
    sizes: dict[int, int] = {}  # of what was checked before: an alias is the same node again

    def size(node: Any, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise _refusal(node, "an anchor whose value holds itself", "a value that ends")
        if id(node) in sizes:
            return sizes[id(node)]
        if len(above) >= LEVELS:
            raise _refusal(node, f"a value below {LEVELS} others", "a configuration with fewer levels")
        if not node.tag.startswith(TAG) or node.tag.removeprefix(TAG) not in TAGS:
            raise _refusal(node, f"the tag {node.tag.replace(TAG, '!!')}", "a value without a tag")
        inner: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inner = [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        else:
            _check_interpolation(node)
        total = 1 + sum(size(value, (*above, id(node))) for value in inner)
        if total > VALUES:
            raise _refusal(node, f"more than {VALUES:,} values, with those that aliases repeat", "fewer")
        sizes[id(node)] = total
        return total

    size(root, ())


def _check_defaults(root: Any) -> None:
    """Check the form of Hydra's defaults list, of which Hydra does not say where it is."""
    import yaml

    expected = "a list of `NAME` and `GROUP: NAME`"
    for key, defaults in root.value:
        if key.value != "defaults":
            continue
        if not isinstance(defaults, yaml.SequenceNode):
            raise _refusal(defaults, "defaults that are not a list", expected)
        for entry in defaults.value:
            if isinstance(entry, yaml.MappingNode) and len(entry.value) == 1:
                [(_, chosen)] = entry.value
                known = isinstance(chosen, yaml.ScalarNode | yaml.SequenceNode)
            else:
                known = isinstance(entry, yaml.ScalarNode) and entry.tag == f"{TAG}str"
            if not known:
                raise _refusal(entry, "an entry of the defaults that names no file", expected)


def _check_interpolation(scalar: Any) -> None:
    """Check a value by the grammar of interpolations. OmegaConf does too, but does not say where the value is."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    if "${" not in scalar.value:
        return
    try:
        parse(scalar.value)
    except GrammarParseError:
        expected = "${KEY} or ${RESOLVER:VALUE}"
        remedy = "Write \\${ for these two characters themselves."
        raise _refusal(scalar, f"{scalar.value!r} is not an interpolation", expected, remedy) from None


def _check_keys(mapping: Any) -> None:
    import yaml

    seen: dict[str, Any] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal(
                key, "a key that is a list or a mapping", "a name", "Quote a key or value that begins with { or [."
            )
        kind = key.tag.removeprefix(TAG)
        if kind in ("merge", "value"):
            continue
        if kind != "str":
            said = f"the key {key.value} is read as {_read_as(key)}"
            raise _refusal(key, said, "a name", f"Write it in quotes: '{key.value}'.")
        if key.value in seen:
            first = seen[key.value].start_mark.line + 1
            raise _refusal(key, f"the key {key.value} is there twice (first in line {first})", "each key once")
        seen[key.value] = key


def _read_as(key: Any) -> str:
    """What YAML makes of a key that is not a string."""
    import yaml

    if key.tag == f"{TAG}bool":
        return "true" if yaml.SafeLoader.bool_values[key.value.lower()] else "false"
    return "null" if key.tag == f"{TAG}null" else "a number"


def _refusal(node: Any, found: str, expected: str, remedy: str = "") -> ConfigError:
    return ConfigError([Problem(_place(node.start_mark), found, expected, remedy)])


def _place(mark: Any) -> str:
    return f"{short_path(mark.name)}:{mark.line + 1}:{mark.column + 1}"


def _syntax_problem(error: Any) -> Problem:
    """What the parser did not accept: where it stopped, and where that began."""
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        text = _text(error.name)
        sign = chr(error.character) if isinstance(error.character, int) else error.character
        line, column = text[: text.find(sign)].count("\n"), text.find(sign) - text.rfind("\n", 0, text.find(sign)) - 1
        place = f"{short_path(str(error.name))}:{line + 1}:{column + 1}"
        return Problem(place, f"the control character U+{ord(sign):04X}", "text")
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    said = str(error.problem or error.context)
    found, remedy = SAID.get(said, (said, ""))
    here = _text(mark.name).split("\n")[mark.line : mark.line + 1]
    if said == TOKEN and here and here[0][mark.column :].startswith("\t"):
        found, remedy = "a tab", "Indent with spaces."
    elif (error.context and error.context.startswith("while parsing a")) or said == END:
        what = error.context.removeprefix("while parsing ").removeprefix("while scanning ")
        found += f" for {what} that begins in line {began.line + 1}, column {began.column + 1}"
    return Problem(_place(mark), found, "YAML", remedy)


TOKEN = "found character that cannot start any token"
END = "found unexpected end of stream"
SAID = {  # the parser's words, ours, and what to do
    "mapping values are not allowed in this context": (
        "a second colon, or a key that is indented differently from the keys above it",
        "Quote a value that holds a colon and a space.",
    ),
    TOKEN: ("a character that begins no value", "Put the value in quotes."),
    END: ("the end of the file, and no closing quote", "Close the quote."),
    "did not find expected ',' or '}'": ("no comma or }", "Close the {."),
    "did not find expected ',' or ']'": ("no comma or ]", "Close the [."),
    "did not find expected key": ("no key", "Indent the keys of one mapping equally."),
    "did not find expected node content": ("no value", ""),
    "did not find expected '-' indicator": ("no -", "Indent the items of one list equally."),
    "could not find expected ':'": ("a line without a colon", ""),
    "did not find expected alphabetic or numeric character": (
        "an alias or an anchor without a name",
        "Quote a value that begins with * or &.",
    ),
    "found undefined alias": ("an alias of an anchor that is not defined", "Quote a value that begins with *."),
    "but found another document": ("a second document", "Remove the line `---`, or divide the file."),
}


def _text(name: str) -> str:
    """The text of the file that was parsed; "" if it is not a file."""
    try:
        return Path(name).read_text("utf-8", "replace")
    except OSError:
        return ""
