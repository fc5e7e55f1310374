"""A stage that trains, on its gang: what every such stage does alike between having a task and having weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.base import Context, Demand
from stages.training.recipe import Execution, Recipe, Training, part
from stages.training.task import TrainingResult, TrainingSpec


def train_on_gang(
    ctx: Context, training: Training, demand: Demand, task: str, arguments: Mapping[str, Any], identity: str
) -> TrainingResult:
    """Train what `task` ("module:function", called with `arguments`) builds, on the ranks of `demand`; what rank 0
    returns. `identity`: see `TrainingSpec`.

    Raises StageError when training cannot go on, Stopped when it was asked to stop.
    """
    from stages.training.loop import train

    spec = TrainingSpec(
        task=task,
        arguments=arguments,
        identity=identity,
        recipe=Recipe(**part(Recipe, training)),
        execution=Execution(**part(Execution, training)),
        scratch=str(ctx.scratch),
    )
    asked = {"ranks": demand.ranks, "rank": demand.rank, "fallback_sizes": demand.fallback_sizes}
    return ctx.gang(train, spec, **asked, max_restarts=training.max_restarts)[0]
