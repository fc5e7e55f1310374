"""From Hydra's sweep syntax to a space, and from a configuration to overrides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from stages.exploration.space import Choice, Condition, Interval, Parameter, Space, Value

TAGS = {"log", "context", "categorical"}
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
RESERVED = {"true", "false", "null", "nan", "inf"}  # words that stand for a value


def split(
    arguments: Sequence[str],
    contexts: Mapping[str, Any],
    actions: Mapping[str, Any],
    conditions: Mapping[str, Mapping[str, Any]],
    prefix: Callable[[str], str] = lambda key: "",
) -> tuple[list[str], Space, dict[str, str]]:
    """The overrides that are the same for all trials, the space, and the key in an override of each parameter.

    A sweep on the command line is an action, or a context if it has the tag `context`. `prefix` gives what comes before
    a key of `contexts` or `actions` in overrides: `++` for one that the configuration may lack. Raises HydraException.
    """
    fixed: list[str] = []
    given: dict[str, list[Override]] = {"context": [], "action": []}
    for kind, entries in (("context", contexts), ("action", actions)):
        given[kind] += [_parse(f"{prefix(key)}{key}={_text(value)}") for key, value in entries.items()]
    for argument in arguments:
        override = _parse(argument)
        if override.is_sweep_override():
            given["context" if "context" in _tags(override.value()) else "action"].append(override)
        else:
            fixed.append(argument)
    try:
        known = {_key(one) for group in given.values() for one in group}
        if unknown := set(conditions) - known:
            raise ValueError(f"a condition on {sorted(unknown)[0]}; expected one of {sorted(known)}")
        space = Space(
            tuple(_parameter(one, conditions) for one in given["context"]),
            tuple(_parameter(one, conditions) for one in given["action"]),
        )
        return fixed, space, {_key(one): one.get_key_element() for group in given.values() for one in group}
    except ValueError as error:
        raise HydraException(f"active exploration: {error}.") from error


def _parse(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _text(value: Any) -> str:
    """A sweep from a configuration file: text of Hydra's syntax, or a list of choices."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return f"choice({','.join(map(literal, value))})"
    return literal(value)


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def _parameter(override: Override, conditions: Mapping[str, Mapping[str, Any]]) -> Parameter:
    name, sweep = _key(override), override.value()
    condition = None
    if own := conditions.get(name):
        if len(own) != 1:
            raise ValueError(f"the condition of {name} names {len(own)} parameters; expected one")
        ((other, values),) = own.items()
        listed = [values] if isinstance(values, str) or not isinstance(values, Sequence) else values
        condition = Condition(other, tuple(listed))
    return Parameter(name, _domain(name, sweep), condition)


def _tags(sweep: object) -> set[str]:
    return set(getattr(sweep, "tags", ()))


def _domain(name: str, sweep: object) -> Interval | Choice:
    tags = _tags(sweep)
    if unknown := tags - TAGS:
        raise ValueError(f"{name}: unknown tag {sorted(unknown)[0]!r}; expected {', '.join(sorted(TAGS))}")
    if isinstance(sweep, IntervalSweep):
        start, end = sweep.start, sweep.end
        assert start is not None
        assert end is not None
        whole = isinstance(start, int) and isinstance(end, int)
        return Interval(float(start), float(end), "log" in tags, whole)
    if isinstance(sweep, RangeSweep):
        numbers = tuple(_plain(one) for one in sweep.range())
        return Choice(numbers, ordered=True)
    if isinstance(sweep, ChoiceSweep):
        values = tuple(_plain(one) for one in sweep.list)
        numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
        if numeric and "categorical" not in tags:
            return Choice(tuple(sorted(values, key=float)), ordered=True)  # type: ignore[arg-type]
        return Choice(values)
    raise ValueError(f"{name}={sweep!r} is not a sweep; expected choice(...), range(...) or interval(...)")


def _plain(value: object) -> Value:
    if isinstance(value, QuotedString):
        return value.text
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} is a list or a mapping; expected numbers, texts and truth values to choose from")


def literal(value: object) -> str:
    """A value as Hydra's override syntax reads it back unchanged."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    plain = WORD.fullmatch(text) and text.lower() not in RESERVED
    return text if plain else QuotedString(text, Quote.double).with_quotes()
