"""Explores a problem with several methods and seeds, so that they can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Context, Runtime, Stage
from stages.exploration.explorations import (
    EXPLORATIONS,
    ExplorationCurve,
    ExplorationFacts,
    ExplorationMap,
    Explorations,
)

ContextualProblem = Literal["branin", "hartmann4", "hartmann6", "half_hard"]
Environment = Literal["navigation", "pendulum", "mountain_car", "cart_pole_swing_up"]
SHARED = ("ae_lsvi", "random", "uncertainty")
CONTEXTUAL_METHODS = (
    *SHARED, "thompson", "profile_ei", "round_robin_ucb", "random_context_ucb", "greedy_ucb", "tpe_per_context",
)  # fmt: skip
EPISODE_METHODS = (*SHARED, "active_starts", "lsvi_ucb", "greedy")
SHOWN_PLACES = 200  # states of a map, the first ones


@dataclass(frozen=True)
class Task:
    """One method with one seed."""

    method: str
    seed: int


@dataclass(frozen=True)
class Done:
    """The result of a task, and the seconds of processor time of its decisions."""

    curves: tuple[ExplorationCurve, ...]
    map: ExplorationMap
    seconds: float


class Explore(Stage):
    """Explores a function with contexts, or an environment, with every method and seed. AE-LSVI and its baselines."""

    headline: ClassVar[str | None] = "worst"

    problem: ContextualProblem | Environment
    methods: tuple[str, ...] = Field(default=("ae_lsvi", "random", "uncertainty"), min_length=1)
    seeds: PositiveInt = 5
    budget: PositiveInt = 60  # trials of a function; rounds of an environment, each of them one episode's samples
    points: PositiveInt = 6  # of each curve
    beta: PositiveFloat | None = None  # width of the bounds in standard deviations; null: of theory, or 1 (environment)
    length_scale: PositiveFloat = 0.7  # of an environment's kernel; a function's are those of largest likelihood
    ridge: PositiveFloat = 1e-4  # of an environment's regression
    pooled: bool = True  # an environment's samples of all steps are one data set
    candidates: PositiveInt = 300  # states that are compared
    source: Literal["sampled", "visited"] = "sampled"  # of candidates: the whole space, or states that were visited
    seed: NonNegativeInt = 0
    workers: Runtime[NonNegativeInt] = Field(default=0)  # at once; 0: as many as the cluster has room for

    @model_validator(mode="after")
    def _methods_exist(self) -> Self:
        valid = CONTEXTUAL_METHODS if self.is_contextual else EPISODE_METHODS
        if unknown := [method for method in self.methods if method not in valid]:
            raise ValueError(f"methods: {unknown[0]!r} is not for {self.problem}; expected some of {', '.join(valid)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: one is there twice; expected each once")
        return self

    @property
    def is_contextual(self) -> bool:
        return self.problem in get_args(ContextualProblem)

    def run(self, ctx: Context) -> Explorations:
        tasks = [Task(method, self.seed + index) for index in range(self.seeds) for method in self.methods]
        done: dict[int, Done] = {}
        for index, result in ctx.map(partial(run_task, self), tasks, workers=self.workers):
            done[index] = result
            ctx.progress(len(done), len(tasks), "explorations")
        ordered = [done[index] for index in range(len(tasks))]
        facts = ExplorationFacts(
            problem=self.problem,
            measure="regret" if self.is_contextual else "return",
            unit="trials" if self.is_contextual else "rounds",
            curves=tuple(curve for one in ordered for curve in one.curves),
            maps=tuple(one.map for one in ordered[: len(self.methods)]),
        )
        (ctx.out / EXPLORATIONS).write_text(facts.model_dump_json(indent=1) + "\n")
        first = [one.worst[-1] for one in facts.curves if one.method == self.methods[0] and one.policy == "last"]
        ctx.metrics({"worst": sum(first) / len(first)})
        for method in self.methods:
            spent = [one.seconds for task, one in zip(tasks, ordered, strict=True) if task.method == method]
            ctx.metrics({f"seconds_{method}": sum(spent) / len(spent)})
        return Explorations(ctx.out)


def run_task(stage: Explore, task: Task) -> Done:
    """One method with one seed, in one thread, so that the result does not depend on the machine's cores."""
    from threadpoolctl import threadpool_limits

    step = max(stage.budget // stage.points, 1)
    at = sorted({*range(step, stage.budget + 1, step), stage.budget})
    with threadpool_limits(1):
        return _contextual(stage, task, at) if stage.is_contextual else _episodes(stage, task, at)


def _contextual(stage: Explore, task: Task, at: list[int]) -> Done:
    from stages.exploration.contextual_methods import explore
    from stages.exploration.problems import PROBLEMS

    problem = PROBLEMS[stage.problem]()
    curve = explore(problem, task.method, at, task.seed, min(10, at[0]), stage.beta)
    found = ExplorationCurve(
        method=task.method, policy="last", seed=task.seed, at=curve.budgets, worst=curve.worst, mean=curve.mean
    )
    places = ExplorationMap(
        method=task.method,
        places=tuple(map(tuple, problem.contexts.tolist())),
        gaps=curve.gaps,
        actions=tuple(map(tuple, problem.actions[list(curve.actions)].tolist())),
    )
    return Done((found,), places, curve.seconds)


def _episodes(stage: Explore, task: Task, at: list[int]) -> Done:
    from stages.exploration.episodes import EpisodeSettings, explore
    from stages.exploration.simulators import SIMULATORS
    from stages.exploration.value_iteration import ValueSettings

    values = ValueSettings(
        beta=stage.beta or 1.0, length_scale=stage.length_scale, ridge=stage.ridge, pooled=stage.pooled, seed=task.seed
    )
    settings = EpisodeSettings(candidates=stage.candidates, source=stage.source, values=values)
    curve = explore(SIMULATORS[stage.problem](), task.method, at, settings, task.seed)
    found = tuple(
        ExplorationCurve.model_validate({
            "method": task.method, "policy": policy, "seed": task.seed, "at": curve.rounds,
            "worst": curve.worst[policy], "mean": curve.mean[policy],
        })
        for policy in curve.worst
    )  # fmt: skip
    places = ExplorationMap(
        method=task.method,
        places=tuple(map(tuple, curve.states[:SHOWN_PLACES].tolist())),
        gaps=tuple(curve.gaps[:SHOWN_PLACES].tolist()),
        actions=tuple(map(tuple, curve.actions[:SHOWN_PLACES].tolist())),
    )
    return Done(found, places, curve.seconds)
