"""How the jobs of a sweep are run and compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt, field_validator

from stages.base import Config

OBJECTIVE = re.compile(r"steps\.([a-z][a-z0-9_]{0,63})\.(.+)")


class SweepConfig(Config):
    """What a `--multirun` compares. None of these values is part of a fingerprint."""

    objective: str | None = None  # steps.STEP.METRIC: the last value of a metric of a step
    direction: Literal["minimize", "maximize"] = "minimize"
    parallel: PositiveInt = 4  # jobs at the same time at most; each step also needs room on the cluster
    contexts: Mapping[str, Any] = {}  # of hydra/sweeper=active_exploration: sweeps by key, see docs/exploration.md
    actions: Mapping[str, Any] = {}
    budget: PositiveInt | None = None  # jobs in all

    @field_validator("objective")
    @classmethod
    def _names_a_metric(cls, objective: str | None) -> str | None:
        if objective is not None and not OBJECTIVE.fullmatch(objective):
            raise ValueError("expected steps.STEP.METRIC, such as steps.evaluate.bits_per_byte")
        return objective

    @property
    def metric(self) -> tuple[str, str] | None:
        """The step and the metric of the objective."""
        found = OBJECTIVE.fullmatch(self.objective or "")
        return (found[1], found[2]) if found else None
