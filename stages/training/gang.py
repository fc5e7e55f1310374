"""Runs training on the gang of a stage: what every stage that trains does between its task and its weights."""

from __future__ import annotations

from collections.abc import Callable

from stages.base import Context, Demand
from stages.training.recipe import Execution, Recipe, Training, fields_of
from stages.training.task import StartState, Task, TrainingResult, TrainingSpec


def train_on_gang(
    ctx: Context,
    training: Training,
    demand: Demand,
    build: Callable[[Recipe], Task],
    identity: str,
    start: StartState | None = None,
    kept_step: int | None = None,
) -> TrainingResult:
    """Train the task that `build` returns on the ranks of `demand`; returns rank 0's result.

    `build`, `identity`, `start` and `kept_step`: see `TrainingSpec`. Raises StageError if training cannot continue,
    Stopped if the run was asked to stop.
    """
    from stages.training.loop import train

    spec = TrainingSpec(
        build=build,
        identity=identity,
        recipe=Recipe.model_validate(fields_of(Recipe, training)),
        execution=Execution.model_validate(fields_of(Execution, training)),
        scratch=str(ctx.scratch),
        start=start,
        kept_step=kept_step,
    )
    results = ctx.gang(
        train,
        spec,
        ranks=demand.ranks,
        rank=demand.rank,
        fallback_sizes=demand.fallback_sizes,
        max_restarts=training.max_restarts,
    )
    return results[0]
