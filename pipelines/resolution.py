"""Interpolations of a configuration: resolved within limits, or as they may be shown.

A few lines can stand for gigabytes: `a: ${b}${b}`, `b: ${c}${c}` and so on. OmegaConf has no limits, so those of its
methods through which every interpolation passes are replaced, while a configuration is composed or resolved, by ones
that count.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.errors import ConfigError, Problem, UnresolvedError

# OmegaConf's own resolvers, which depend on their arguments and on the configuration only.
PURE = {"oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select"}

# Texts of which no interpolation is computed, relative, or of a step.
REFERS_ELSEWHERE = re.compile(r"([^$\\]|\$\{(oc\.env:[^${}\\]*|(?!steps\b)[A-Za-z_]\w*(\.\w+)*)\})*")

VALUES = 200_000  # that interpolations may stand for in one configuration
VALUES_OF_ONE = 10  # an interpolation costs as much time as this many values
CHARACTERS = 10_000_000
# What a value that nobody gave is to be, by its key or the last part of it.
WANTED = {
    "text": ("a file, a folder, a glob or the URL of one", "PATH"),
    "store.root": ("the address of a bucket", "s3://BUCKET/PREFIX"),
    "path": ("a path", "PATH"),
}
TOO_MANY = "interpolations that stand for more than"
COUNTED = ("resolve_parse_tree", "_resolve_node_interpolation", "_evaluate_custom_resolver")  # of a Container


@contextmanager
def bounded() -> Iterator[None]:
    """Within, interpolations that stand for more than the limits raise one of OmegaConf's errors."""
    from omegaconf.base import Container

    count = _Count()
    before = {name: getattr(Container, name) for name in COUNTED}
    for name, method in before.items():
        setattr(Container, name, count.counting(method))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Container, name, method)


class _Count:
    """What interpolations have been resolved to so far."""

    def __init__(self) -> None:
        self.values = 0
        self.characters = 0

    def counting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.values += VALUES_OF_ONE
            self._check()
            found = method(*arguments, **named)
            self._add(found)
            self._check()
            return found

        return counted

    def _add(self, found: Any) -> None:
        from omegaconf.base import Container, Node

        content = found._value() if isinstance(found, Node) else found
        if isinstance(content, str):
            self.characters += len(content)
        elif isinstance(found, Container):
            self.values += _size(content)

    def _check(self) -> None:
        from omegaconf.errors import InterpolationResolutionError

        if self.values > VALUES:
            raise InterpolationResolutionError(f"{TOO_MANY} {VALUES:,} values")
        if self.characters > CHARACTERS:
            raise InterpolationResolutionError(f"{TOO_MANY} {CHARACTERS:,} characters")


def _size(content: Any) -> int:
    """How many values a container of OmegaConf holds, those of its interpolations not included."""
    from omegaconf.base import Container

    if isinstance(content, dict):
        content = content.values()
    elif not isinstance(content, list):
        return 1
    return 1 + sum(_size(item._value()) if isinstance(item, Container) else 1 for item in content)


def resolved(composed: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """A DictConfig as plain values, without the keys `leave_out`.

    Raises UnresolvedError if a value is missing or an interpolation is of nothing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

    try:
        with bounded():
            chosen: dict[Any, Any] = {key: composed[key] for key in composed if key not in leave_out}
            return {
                key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
                if OmegaConf.is_config(value)
                else value
                for key, value in chosen.items()
            }
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        key = error.full_key or "config"
        if isinstance(error, InterpolationToMissingValueError):  # named after the key that it stands for
            key = first_line(error).partition("Missing mandatory value: ")[2].rstrip(".") or key
        last = key.rpartition(".")[2]
        expected, example = WANTED.get(key, WANTED.get(last, ("a value", "VALUE")))
        raise UnresolvedError([Problem(key, "not set", expected, f"Set it with {key}={example}.")]) from error
    except OmegaConfBaseException as error:
        found = first_line(error)
        expected = "fewer" if found.startswith(TOO_MANY) else "a value"
        raise UnresolvedError([Problem(error.full_key or "config", found, expected)]) from error
    except RecursionError as error:
        raise UnresolvedError([Problem("config", "interpolations that name each other without end", "")]) from error


def literal_steps(values: Mapping[str, Any]) -> dict[str, Any]:
    """The steps of an unresolved configuration whose values stand as they are written.

    None of them if an interpolation may refer to a step: only names of other keys and of the environment cannot.
    """
    steps = values.get("steps")
    if not isinstance(steps, Mapping):
        return {}
    inside = {name: list(_special(step)) for name, step in steps.items()}
    others = _special({key: value for key, value in values.items() if key != "steps"})
    if not all(REFERS_ELSEWHERE.fullmatch(text) for text in itertools.chain(others, *inside.values())):
        return {}
    return {name: step for name, step in steps.items() if not inside[name]}


def _special(value: Any) -> Iterator[str]:
    """The texts in a value that OmegaConf would not leave as they are."""
    if isinstance(value, str):
        if "${" in value or value == "???":
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _special(item)
    elif isinstance(value, list):
        for item in value:
            yield from _special(item)


def unresolved(composed: Any) -> dict[str, Any]:
    """A DictConfig as plain values, with its interpolations as they are written."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(composed, resolve=False)
    return dict(found)


def resolved_without_environment(composed: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """A DictConfig as `resolved` makes it, in which only references to the configuration itself are resolved.

    Every other resolver, such as `oc.env`, stands as it is written. If the structure of the configuration depends on
    one, nothing is resolved.
    """
    try:
        with references_as_written():
            return resolved(composed, leave_out)
    except ConfigError:
        return {key: value for key, value in unresolved(composed).items() if key not in leave_out}


@contextmanager
def references_as_written() -> Iterator[None]:
    """Within, `${oc.env:NAME}` and others that do not depend on the configuration alone resolve to this text itself."""
    from omegaconf.basecontainer import BaseContainer

    before = BaseContainer._resolvers
    BaseContainer._resolvers = {
        name: resolver if name in PURE else _as_written(name) for name, resolver in before.items()
    }
    try:
        yield
    finally:
        BaseContainer._resolvers = before


def _as_written(name: str) -> Any:
    def written(config: Any, parent: Any, node: Any, arguments: Any, texts: tuple[str, ...]) -> str:
        return f"${{{name}:{','.join(texts)}}}"

    return written


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
