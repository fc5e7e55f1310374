"""What looks like an override on a command line and is the verb's own, so that Hydra does not get to see it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pipelines.errors import BloomlineError

OWN_KEYS = {
    "artifacts": ("older", "larger", "user"),
    "runs": ("sweep", "limit", "all"),
    "logs": ("rank", "worker"),
    "manifest": ("kind",),
}


def split(verb: str, overrides: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The verb's own values by key, and the other overrides.

    Raises BloomlineError for a key that is almost one of the verb's own, and none of the configuration.
    """
    names = OWN_KEYS.get(verb, ())
    own: dict[str, str] = {}
    others: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in names:
            own[key] = value
        elif (meant := difflib.get_close_matches(key, names, 1)) and not _is_configuration(key):
            raise BloomlineError(f"{verb}: {key}: no such key. Did you mean {meant[0]}={value}?")
        else:
            others.append(override)
    return own, others


def _is_configuration(key: str) -> bool:
    from pipelines import config, validation

    return key in (*validation.field_names(config.Settings), "steps", "pipeline")
