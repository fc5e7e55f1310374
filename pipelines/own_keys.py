"""What looks like an override on a command line and is the verb's own, so that Hydra does not get to see it."""

from __future__ import annotations

from collections.abc import Iterable

OWN_KEYS = {
    "artifacts": ("older", "larger", "user"),
    "runs": ("sweep", "limit", "all"),
    "logs": ("rank", "worker"),
    "manifest": ("kind",),
}


def split(verb: str, overrides: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The verb's own values by key, and the other overrides."""
    own: dict[str, str] = {}
    others: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in OWN_KEYS.get(verb, ()):
            own[key] = value
        else:
            others.append(override)
    return own, others
