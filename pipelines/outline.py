"""What a command needs of a configuration that it does not run: its settings, and the names of its steps.

A pipeline may have values that must be set before it can run. What reads a store, or looks at a cluster, does not need
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import config, project, redaction, resolution
from pipelines.config import Settings
from pipelines.errors import ConfigError, UnresolvedError


@dataclass(frozen=True)
class Outline:
    """A configuration without the values of its steps."""

    settings: Settings
    steps: tuple[str, ...]  # their names


def compose(overrides: Sequence[str], composed: Any = None) -> Outline:
    """Compose the configuration from Hydra overrides and check it; values that only steps need may be missing.

    `composed`: the DictConfig if Hydra composed one already. Raises ConfigError.
    """
    try:
        whole = config.compose(overrides) if composed is None else config.check(composed)
        return Outline(whole.settings, tuple(whole.graph.steps))
    except UnresolvedError:
        values = config.compose_values(overrides) if composed is None else config.plain(composed)
    from omegaconf import OmegaConf

    written = OmegaConf.create(dict(values))
    # A key of the pipeline's own that nobody gave, such as `text`, is for its steps.
    unused = {"steps", *(key for key in values if OmegaConf.is_missing(written, key))}
    found = resolution.resolved(written, unused)
    shown = redaction.shown_config(resolution.resolved_without_environment(written, unused))
    redaction.remember(found, shown)
    try:
        settings = config.check_settings(found)
    except ConfigError as error:
        raise ConfigError(config.shown_problem(problem, shown) for problem in error.problems) from error
    project.find(Path.cwd()).use(settings.packages)
    steps = values.get("steps")
    return Outline(settings, tuple(steps) if isinstance(steps, dict) else ())
