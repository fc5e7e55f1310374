"""The environment of processes that are started from here: without the keys that only the driver uses."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Whoever has a key can sign records. Steps run the code of users and read foreign data.
DRIVER_ONLY = ("BLOOMLINE_SIGNING_KEY", "BLOOMLINE_PREVIOUS_SIGNING_KEY")


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process with `changes`, for a child that is not the driver."""
    return {name: value for name, value in os.environ.items() if name not in DRIVER_ONLY} | dict(changes or {})


def forget_keys() -> None:
    """In a process that is not the driver, remove the keys that it inherited, so that its own children have none."""
    for name in DRIVER_ONLY:
        os.environ.pop(name, None)
