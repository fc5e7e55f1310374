"""How much is kept of what the processes of a run print, and how soon it is in the store."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from stages.base import Config


class LogsConfig(Config):
    """The logs of a run. None of these values is part of a fingerprint."""

    largest_bytes: int = Field(8 << 20, ge=1 << 16)  # kept of each process: half the beginning, half the end
    collect_interval_s: PositiveFloat = 2.0  # from a process to the store
