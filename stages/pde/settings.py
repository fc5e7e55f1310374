"""What decides the result of an inference, apart from its equation and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stages.base import Config


class Settings(Config):
    """The fields of the stage that a chain needs."""

    energy: float = Field(default=0.9999, gt=0, lt=1)  # share of the prior energy, also of derivatives, that is kept
    most_modes: int = Field(default=400, ge=1, le=2000)  # of a component
    length_share: PositiveFloat | None = None  # length-scales relative to the smoothed data's; null: by evidence
    early_share: float | None = Field(default=None, gt=0, le=1)  # of t's length-scale, first to last; null: by evidence
    temper: PositiveFloat | None = None  # divides prior and constraint; null: constraint terms per observation
    grid: Mapping[str, int] = {}  # points of the constraint by coordinate; others: by length-scale and data
    most_grid_points: int = Field(default=4000, ge=4, le=40_000)  # of the constraint
    sampler: Literal["nuts", "laplace"] = "nuts"
    chains: int = Field(default=4, ge=1, le=64)  # of NUTS
    warmup: PositiveInt = 100  # steps of a chain that are not kept
    samples: PositiveInt = 150  # of a chain
    most_doublings: int = Field(default=7, ge=1, le=12)  # of a trajectory: 2^n steps
    r_hat_limit: PositiveFloat | None = 1.05  # the step fails above it; null: it never fails
    seed: NonNegativeInt = 0
