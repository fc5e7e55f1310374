"""What the verbs `stages` and `pipelines` show: what a configuration may name."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.terminal_text import say
from pipelines import config, project, terminal
from pipelines.errors import BloomlineError, remedy_of
from pipelines.fields import Field, artifacts, choices, configs, fields, summary
from pipelines.graph import produces
from pipelines.session import Session
from pipelines.table import Cell, Column, draw
from stages import registry
from stages.base import Stage

PACKAGE_LINE = "# @package"  # Hydra's directive, which may precede the first comment of a file


def show_stages(words: Sequence[str], overrides: list[str], composed: Any, session: Session) -> int:
    """`stages [NAME]`: every stage with a line of text, or one stage with its fields."""
    values: Mapping[str, Any] = config.compose_values(overrides) if composed is None else config.plain(composed)
    project.find(Path.cwd()).use(values.get("packages"))
    if len(words) > 1:
        raise BloomlineError("stages: expected no word, or the name of one stage.")
    if words:
        try:
            _show_stage(words[0], registry.STAGES.load(words[0]))
        except registry.RegistryError as error:
            raise BloomlineError(
                f"stages: {error.found}; expected {error.expected}. {remedy_of(error)}".rstrip()
            ) from error
    else:
        rows = [(name, *_line(name)) for name in registry.STAGES.names()]
        _draw([Column("Stage"), Column("Makes"), Column("What it does", flexible=True, fold=True)], rows)
    return 0


def show_pipelines(overrides: list[str], composed: Any, session: Session) -> int:
    """`pipelines`: every pipeline with a line of text; those of the user's directories first, as Hydra finds them."""
    shipped = config.CONFIG_DIRECTORY
    found: dict[str, tuple[str, str]] = {}
    for directory in [*_users_directories(overrides), shipped]:
        for file in sorted(file for file in (directory / "pipeline").glob("*.yaml") if file.is_file()):
            where = "shipped" if directory == shipped else terminal.short_path(str(directory))
            found.setdefault(file.stem, (where, first_sentence(file.read_text("utf-8", "replace").splitlines())))
    columns = [Column("Pipeline"), Column("Where"), Column("What it does", flexible=True, fold=True)]
    _draw(columns, [(name, *found[name]) for name in found])
    return 0


def first_sentence(lines: Iterable[str]) -> str:
    """The first sentence of the comment at the beginning of a YAML file; "" if there is none."""
    said: list[str] = []
    for line in lines:
        if line.startswith(PACKAGE_LINE) or (not line.strip() and not said):
            continue
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# ").strip())
    return re.split(r"(?<=[.])\s", " ".join(said), maxsplit=1)[0]


def _users_directories(overrides: Sequence[str]) -> Iterator[Path]:
    """The directories of configurations that a command line and the project name."""
    given = [override.lstrip("+").partition("=") for override in overrides]
    for key, _, value in given:
        if key == "--config-dir":
            yield Path(value)
        elif key == "hydra.searchpath":
            yield from (Path(found) for found in re.findall(r"file://([^\"',\]]+)", value))
    own = project.find(Path.cwd()).config
    if own is not None and "hydra.searchpath" not in (key for key, _, _ in given):
        yield own


def _line(name: str) -> tuple[str, str]:
    """What a stage makes, and the first paragraph of its docstring; for one that can't be loaded, the reason."""
    try:
        stage = registry.STAGES.load(name)
        return produces(stage).__name__, summary(stage)
    except registry.RegistryError as error:
        return "", f"can't be used: {error.found}. {remedy_of(error)}".rstrip()


def _show_stage(name: str, stage: type[Stage]) -> None:
    reads = ", ".join(kind.__name__ for kind in artifacts(stage)) or "no artifact"
    say(f"{name}: {summary(stage)}")
    identity = registry.code_identity(stage)
    version = f"version {stage.version}" if registry.SOURCE_KEY not in identity else "identified by its source"
    say(f"Reads {reads}; makes {produces(stage).__name__}. Code: {stage.__module__}, {version}.")
    _show_fields(fields(stage))
    for kind in configs(stage):
        say(f"\n{kind.__name__}: {summary(kind)}")
        _show_fields(fields(kind))
    for choice in choices(stage):
        names = textwrap.fill(", ".join(choice.registry.names()), 118, initial_indent="  ", subsequent_indent="  ")
        say(f"\n{choice.registry.kind.capitalize()}, by `{choice.key}`:\n{names}")


def _show_fields(found: Sequence[Field]) -> None:
    for title, is_runtime in (("Identity: part of the result", False), ("Runtime: how the work is done", True)):
        rows = [
            (field.name, field.type, field.default or "required", field.description)
            for field in found
            if field.is_runtime == is_runtime
        ]
        if rows:
            say(f"\n  {title}")
            columns = [
                Column("Field"),
                Column("Type", most=40, fold=True),
                Column("Default", most=30, fold=True),
                Column("Description", flexible=True, fold=True),
            ]
            _draw(columns, rows)


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    out = terminal.console()
    draw(out, columns, [[Cell(text) for text in row] for row in rows])
