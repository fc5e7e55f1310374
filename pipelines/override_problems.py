"""What is wrong with an override of the command line, before or after Hydra has seen it."""

from __future__ import annotations

import re
import shlex

from pipelines import project, redaction
from pipelines.errors import Problem
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
