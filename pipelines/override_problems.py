"""What is wrong with an override of the command line, before or after Hydra has seen it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from pipelines import project, redaction
from pipelines.errors import Problem, nearest
from pipelines.yaml_loader import LEVELS

FORCED = "++"  # Hydra: add or override
LONGEST_OVERRIDE = 100_000  # characters


def override_problem(override: str) -> Problem | None:
    """Why an override is refused before Hydra parses it; None if it is not."""
    key = override.partition("=")[0].lstrip("+~")
    if len(override) > LONGEST_OVERRIDE:
        return Problem(key, f"{len(override):,} characters", f"at most {LONGEST_OVERRIDE:,}", "Write a file instead.")
    level = deepest = 0
    for sign in override:
        level += (sign in "[{(") - (sign in "]})")
        deepest = max(deepest, level)
    if max(deepest, key.count(".")) > LEVELS:
        return Problem(key, f"a value below {LEVELS} others", "a configuration with fewer levels")
    if redaction.HIDDEN in override and redaction.is_redacted(override):
        remedy = "Secrets belong in the environment: '${oc.env:NAME}'."
        return Problem(key, f"{redaction.HIDDEN}, which stands for what is not shown", "the value itself", remedy)
    return None


def grammar_problem(override: str, is_ambiguous: bool) -> Problem:
    """An override that is not in Hydra's grammar, or a sweep, with the quotes that would make its value a text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    override = override.removeprefix(FORCED)
    key, _, value = override.partition("=")
    text = f"{key}={project.quoted(value)}"
    try:
        OverridesParser.create().parse_override(text)
        remedy = f"As one text, in a shell: {shlex.quote(text)}."
    except HydraException:
        remedy = ""
    if re.fullmatch(r"\[[^][{}\"']+\]", value):  # a list of texts, such as paths with an equals sign
        items = ",".join(project.quoted(item.strip()) for item in value[1:-1].split(","))
        remedy = f"As a list of texts, in a shell: {shlex.quote(f'{key}=[{items}]')}."
    if is_ambiguous:
        as_list = shlex.quote(f"{key}=[{value}]")
        return Problem(key, f"{value!r} is several values", "one value", f"{remedy} As a list: {as_list}.".strip())
    if not value:
        return Problem(repr(override), "not an override", "KEY=VALUE")
    return Problem(key, f"{value!r} is not a value in Hydra's grammar", "the value in quotes", remedy)


def no_file_problem(named: str, options: Iterable[str], overrides: Iterable[str]) -> Problem:
    """The choice of a file that no folder of configurations has. `named`: GROUP/FILE, each may have a slash."""
    group, _, name = named.rpartition("/")
    for override in overrides:
        key, _, value = override.partition("=")
        chosen = key.lstrip("+").partition("@")[0]
        if value and named == f"{chosen}/{value}":
            group, name = chosen, value
    remedy = nearest(name, options) if "/" not in name else _instead_of_path(group, name)
    return Problem(group, repr(name), f"a file of conf/{group}/", remedy)


def _instead_of_path(group: str, path: str) -> str:
    if group == "store":
        return f"Did you mean {'store=s3 ' if path.startswith('s3://') else ''}store.root={path}?"
    if group == "cluster":
        return f"Did you mean cluster=remote cluster.address={path}?"
    return f"A file of yours is chosen by its name: --config-dir DIR {group}=NAME finds DIR/{group}/NAME.yaml."
