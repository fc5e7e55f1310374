"""The user's project around the working directory: what `[tool.bloomline]` in its pyproject.toml says.

[tool.bloomline]
packages = ["my_package"]   # may hold stages, operations and readers
config = "conf"             # a directory of configurations, searched together with the shipped one
pipeline = "hello"          # the pipeline of a command that names none

[project.entry-points."bloomline.stages"]
greet = "my_package.greet:Greet"    # a short name; without one: `stage: my_package.greet:Greet`
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from pipelines import validation
from pipelines.errors import ConfigError, Problem
from stages import registry
from stages.base import Config


def _list(value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name.isidentifier() for name in value):
        return value
    raise ValueError("expected a list of top-level packages, such as [my_package]")


Packages = Annotated[tuple[str, ...], BeforeValidator(_list)]


class Table(Config):
    """The table `[tool.bloomline]`."""

    packages: Packages = ()
    config: str | None = None
    pipeline: str | None = None


@dataclass(frozen=True)
class Project:
    """A user's project."""

    directory: Path
    table: Table = field(default_factory=Table)
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # group -> name -> package.module:Class

    @property
    def config(self) -> Path | None:
        """The project's directory of configurations."""
        return self.directory / self.table.config if self.table.config else None

    def use(self, packages: Any = ()) -> None:
        """Make its packages, and those that the configuration names, known to the registries. Raises ConfigError."""
        try:
            named = dict.fromkeys([*self.table.packages, *Table(packages=packages).packages])
            registry.use_packages(self.directory, tuple(named), self.entry_points)
        except ValidationError as error:
            raise ConfigError(validation.problems("", Table, error, {"packages": packages})) from None
        except registry.RegistryError as error:
            raise ConfigError([Problem("packages", error.found, error.expected, error.remedy)]) from error

    def overrides(self, given: Sequence[str]) -> list[str]:
        """Overrides of a command line, preceded by those that the project stands for where the command has none."""
        own = {}
        if self.config is not None:
            own["hydra.searchpath"] = f"hydra.searchpath=[{quoted(f'file://{self.config}')}]"
        if self.table.pipeline is not None:
            own["pipeline"] = f"pipeline={self.table.pipeline}"
        said = {override.lstrip("+").partition("=")[0] for override in given}
        return [*(override for key, override in own.items() if key not in said), *given]


def find(start: Path) -> Project:
    """The project that a directory belongs to. Raises ConfigError for a file that is not as it should be.

    It is the nearest directory at or above `start` whose `pyproject.toml` has a table `[tool.bloomline]`. The search
    ends at the root of a repository (`.git`) and at the home directory; without such a file the project is `start`.
    """
    for directory in (start, *start.parents):
        file = directory / "pyproject.toml"
        content = _read(file) if file.is_file() else {}
        if "bloomline" in (tool := _table(file, content, "tool")):
            offered = _table(file, _table(file, content, "project"), "entry-points", "project.")
            groups = {group: _table(file, offered, group, "project.entry-points.") for group in offered}
            return Project(directory, _checked(file, _table(file, tool, "bloomline", "tool.")), groups)
        if (directory / ".git").exists() or directory == Path.home():
            break
    return Project(start)


def quoted(value: str) -> str:
    """A string in Hydra's grammar: a quote in it is escaped, and so is each backslash that precedes a quote."""
    doubled = re.sub(r'\\+(?="|$)', r"\g<0>\g<0>", value)
    return '"' + doubled.replace('"', '\\"') + '"'


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError([Problem(str(file), str(error), "a file in TOML")]) from None


def _table(file: Path, content: Mapping[str, Any], key: str, above: str = "") -> Mapping[str, Any]:
    """The table at `key`, empty if there is none. Raises ConfigError for a value of another kind."""
    table = content.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError([Problem(f"{file}: {above}{key}", repr(table), "a table")])
    return table


def _checked(file: Path, content: Mapping[str, Any]) -> Table:
    where = f"{file}: tool.bloomline"
    try:
        table = Table.model_validate(content)
    except ValidationError as error:
        raise ConfigError(validation.problems(where, Table, error, content)) from None
    if table.config is not None and not (file.parent / table.config).is_dir():
        raise ConfigError([Problem(f"{where}.config", repr(table.config), f"a directory in {file.parent}")])
    return table
