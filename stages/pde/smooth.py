"""Fits a Gaussian process to every observed component: length-scales, scale and noise by marginal likelihood."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field, NonNegativeInt

from stages.base import Context, Stage, StageError, Stopped
from stages.pde.kernel_names import KernelName
from stages.pde.observations import Observations
from stages.pde.smoothed import FACTS, Smoothed, SmoothedComponent, SmoothedFacts

FEWEST = 4  # values of a component
HIDDEN_MEAN_SD = 2.0  # of a hidden component's mean, relative to the size of the observed components


class Smooth(Stage):
    """Smooths observations without an equation. What it finds are the processes that the equation then constrains."""

    version: ClassVar[str] = "2"  # the mean of a hidden component is not known
    headline: ClassVar[str | None] = "noise"
    spawns: ClassVar[bool] = False

    observations: Observations
    kernel: KernelName = "matern_11_2"  # of every coordinate; its process has as many derivatives as the equation needs
    starts: int = Field(default=2, ge=1, le=100)  # of the search, each with other length-scales
    seed: NonNegativeInt = 0

    def run(self, ctx: Context) -> Smoothed:
        import numpy as np
        from threadpoolctl import threadpool_limits

        from stages.pde import marginal

        facts, table = self.observations.facts, self.observations.table().training
        low, high = table.points.min(axis=0), table.points.max(axis=0)
        flat = [name for name, a, b in zip(facts.coordinates, low, high, strict=True) if not a < b]
        if flat:
            raise StageError(f"all observations have the same {flat[0]}: nothing tells how components change along it")
        found: dict[str, SmoothedComponent] = {}
        for place, name in enumerate(facts.components):
            values = table.values[:, place]
            known = ~np.isnan(values)
            if not known.any():
                ctx.note(f"{name} is not observed: its process has the length-scales of the observed components")
                continue
            if known.sum() < FEWEST:
                raise StageError(f"{name} has {int(known.sum())} values; expected at least {FEWEST}")
            if ctx.stopping():
                raise Stopped
            mean = float(values[known].mean())
            with threadpool_limits(1):
                best, likelihoods = marginal.fit(
                    self.kernel, table.points[known], values[known] - mean, list(high - low), self.starts, self.seed
                )
            found[name] = SmoothedComponent(
                kernel=self.kernel, lengths=best.lengths, mean=mean, scale=best.scale, noise=best.noise, observed=True,
                log_likelihoods=tuple(likelihoods),
            )  # fmt: skip
            ctx.metrics({f"noise_{name}": best.noise, f"log_likelihood_{name}": best.log_likelihood})
            ctx.progress(place + 1, len(facts.components), "components")
        if not found:
            raise StageError("no component is observed: expected values of at least one")
        observed = list(found.values())
        mean, scale = (float(np.mean([getattr(one, name) for one in observed])) for name in ("mean", "scale"))
        hidden = SmoothedComponent(
            kernel=self.kernel,
            lengths=tuple(np.exp(np.mean(np.log([one.lengths for one in observed]), axis=0)).tolist()),
            mean=mean,
            mean_sd=HIDDEN_MEAN_SD * math.hypot(mean, scale),
            scale=scale,
            noise=float(np.mean([one.noise for one in observed])),
            observed=False,
        )
        result = SmoothedFacts(
            components={name: found.get(name, hidden) for name in facts.components},
            ranges=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        )
        ctx.metrics({"noise": observed[0].noise})
        (ctx.out / FACTS).write_text(result.model_dump_json(indent=2) + "\n")
        return Smoothed(ctx.out)
