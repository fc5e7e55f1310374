"""Active exploration with contexts: the next trials, and the best action for every context.

The context of the next trial is the one whose best action is least certain: the gap between the largest upper and the
largest lower confidence bound over its actions is largest. Its action is the one with the largest upper bound. This is
AE-LSVI (arXiv 2212.09510) for episodes of one step. All values here are to be maximised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.exploration.gaussian_process import GaussianProcess, fit
from stages.exploration.space import Array, Configuration, Space, Value, candidates, neighbours

REFINED = 64  # candidates near the best one, for intervals
PRIOR_REPLICATES = 4.0  # weight of the pooled variance of replicates in the variance of one trial


@dataclass(frozen=True)
class Trial:
    """A configuration (context and action) and the values that were measured there; none if the trial failed."""

    configuration: Configuration
    values: tuple[float, ...]

    @property
    def failed(self) -> bool:
        return not self.values or not all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Settings:
    """How to explore.

    `beta`: the width of the bounds in standard deviations; None: from theory (`width`). `beta_scale` multiplies the
    square of that width; 1 is the theory, and a fifth works better in practice (Srinivas et al. 2010, section 6).
    `initial`: trials before the first model; None: twice the number of parameters plus two, at most a quarter of the
    budget. `failure_penalty`: how many standard deviations below the worst success a failed trial counts.
    """

    budget: int
    beta: float | None = None
    beta_scale: float = 0.2
    confidence: float = 0.9
    initial: int | None = None
    contexts: int = 64  # the most that are compared, where they are not a short list
    actions: int = 512
    failure_penalty: float = 1.0
    policy: Literal["last", "best_round"] = "last"
    seed: int = 0

    def initial_trials(self, space: Space) -> int:
        if self.initial is not None:
            return self.initial
        return max(2, min(2 * (len(space.parameters) + 1), self.budget // 4))


@dataclass(frozen=True)
class Answer:
    """The best action for a context, with the bounds and the mean of its value, and how many trials it had there."""

    context: Configuration
    action: Configuration
    lower: float
    mean: float
    upper: float
    gap: float
    trials: int


def gaps(upper: Array, lower: Array) -> Array:
    """The uncertainty about the best action: largest upper minus largest lower bound, over the last axis."""
    return np.asarray(upper.max(-1) - lower.max(-1))


def width(settings: Settings, candidates: int, trials: int) -> float:
    """The width of the bounds in standard deviations: `beta`, or that of a union bound over candidates and trials.

    The latter is the square root of 2 log(|D| t^2 pi^2 / (6 delta)) (Srinivas et al. 2010, theorem 1), scaled.
    """
    if settings.beta is not None:
        return settings.beta
    delta = 1 - settings.confidence
    square = 2 * math.log(candidates * max(trials, 1) ** 2 * math.pi**2 / (6 * delta))
    return math.sqrt(settings.beta_scale * square)


def model(space: Space, trials: Sequence[Trial], settings: Settings) -> GaussianProcess:
    """The posterior after the trials. Replicates count as one observation whose noise is that of their mean."""
    good = [trial for trial in trials if not trial.failed]
    means = np.array([np.mean(trial.values) for trial in good])
    if len(good) > 1:
        low, deviation = float(means.min()), float(means.std())
    else:
        low, deviation = (float(means[0]) if len(good) else 0.0), 0.0
    penalised = low - settings.failure_penalty * (deviation or 1.0)
    y = np.array([penalised if trial.failed else float(np.mean(trial.values)) for trial in trials])
    x = space.encode([trial.configuration for trial in trials])
    return fit(x, y, space.groups(), _relative_noise(trials))


def _relative_noise(trials: Sequence[Trial]) -> Array:
    """The noise variance of each trial's mean, relative to that of one measurement.

    The variance of one trial is estimated by its replicates and shrunk to the variance of all of them.
    """
    replicated = [trial for trial in trials if not trial.failed and len(trial.values) > 1]
    degrees = sum(len(trial.values) - 1 for trial in replicated)
    squares = sum(float(np.var(trial.values)) * len(trial.values) for trial in replicated)
    pooled = squares / degrees if degrees else 0.0
    found = []
    for trial in trials:
        count = 1 if trial.failed else len(trial.values)
        ratio = 1.0
        if count > 1 and pooled > 0:
            own = float(np.var(trial.values)) * count
            ratio = (PRIOR_REPLICATES + own / pooled) / (PRIOR_REPLICATES + count - 1)
        found.append(ratio / count)
    return np.array(found)


def propose(space: Space, trials: Sequence[Trial], settings: Settings, count: int = 1) -> list[dict[str, Value]]:
    """The next `count` configurations. Depends on the trials, the settings and the space alone.

    The first ones fill the space: contexts in turn, actions of a Sobol sequence. Later ones follow the gap rule, each
    after the first of a batch with the posterior mean of those before it as their value.
    """
    seed = settings.seed + 7919 * (len(trials) + 1)
    contexts = candidates(space.contexts, settings.contexts, settings.seed)
    first = settings.initial_trials(space) - len(trials)
    found = [_initial(space, contexts, settings, len(trials) + index) for index in range(min(first, count))]
    if len(found) == count:
        return found
    gp = model(space, trials, settings)
    for configuration in found:
        gp = gp.hallucinate(space.encode([configuration])[0])
    rng = np.random.default_rng(seed)
    while len(found) < count:
        chosen = _choose(space, contexts, gp, settings, len(trials) + len(found), rng)
        found.append(chosen)
        gp = gp.hallucinate(space.encode([chosen])[0])
    return found


def _initial(space: Space, contexts: list[dict[str, Value]], settings: Settings, index: int) -> dict[str, Value]:
    """The trial `index` of those that fill the space."""
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(contexts))
    context = contexts[order[index % len(order)]]
    actions = candidates(space.actions, 4096, settings.seed, context)
    finite = all(parameter.domain.values() is not None for parameter in space.actions)
    place = int(rng.permutation(len(actions))[index % len(actions)]) if finite else index % len(actions)
    return {**context, **actions[place]}


def _choose(
    space: Space,
    contexts: list[dict[str, Value]],
    gp: GaussianProcess,
    settings: Settings,
    trials: int,
    rng: np.random.Generator,
) -> dict[str, Value]:
    """The context with the largest gap, and its action with the largest upper bound."""
    beta = width(settings, len(contexts) * settings.actions, trials)
    best: tuple[float, dict[str, Value]] | None = None
    for context in contexts:
        actions = candidates(space.actions, settings.actions, settings.seed, context)
        mean, deviation = gp.posterior(space.encode([{**context, **action} for action in actions]))
        upper = mean + beta * deviation
        gap = float(gaps(upper, mean - beta * deviation))
        if best is None or gap > best[0]:
            best = gap, {**context, **actions[int(upper.argmax())]}
    assert best is not None
    return _refined(space, best[1], gp, beta, rng)


def _refined(
    space: Space, configuration: dict[str, Value], gp: GaussianProcess, beta: float, rng: np.random.Generator
) -> dict[str, Value]:
    """The action near that of a configuration with the largest mean + beta * deviation; itself if all are finite."""
    if all(parameter.domain.values() is not None for parameter in space.actions):
        return configuration
    context = {one.name: configuration[one.name] for one in space.contexts if one.name in configuration}
    action = {one.name: configuration[one.name] for one in space.actions if one.name in configuration}
    near = [action, *neighbours(space.actions, action, REFINED, rng, context)]
    mean, deviation = gp.posterior(space.encode([{**context, **one} for one in near]))
    return {**context, **near[int((mean + beta * deviation).argmax())]}


def answers(space: Space, trials: Sequence[Trial], settings: Settings) -> list[Answer]:
    """For every context the action whose lower bound is largest, now or (`best_round`) after any number of trials.

    Actions are those of the candidates and of the trials. Contexts in a continuous space are those of the candidates.
    """
    gp = model(space, trials, settings)
    rng = np.random.default_rng(settings.seed)
    found = []
    contexts = candidates(space.contexts, settings.contexts, settings.seed)
    beta = width(settings, len(contexts) * settings.actions, len(trials))
    names = [one.name for one in space.actions]
    for context in contexts:
        tried = [{name: one.configuration[name] for name in names if name in one.configuration} for one in trials]
        actions = candidates(space.actions, settings.actions, settings.seed, context)
        if not any(parameter.condition for parameter in space.actions):
            actions += tried
        configurations = [{**context, **action} for action in actions]
        x = space.encode(configurations)
        if settings.policy == "best_round":
            best = configurations[int(lower_bounds_by_round(gp, x, beta).max(0).argmax())]
        else:
            mean, deviation = gp.posterior(x)
            best = _refined(space, configurations[int((mean - beta * deviation).argmax())], gp, -beta, rng)
        mean, deviation = gp.posterior(np.vstack([space.encode([best]), x]))
        upper, lower = mean + beta * deviation, mean - beta * deviation
        found.append(
            Answer(
                context=context,
                action={name: best[name] for name in names if name in best},
                lower=float(lower[0]),
                mean=float(mean[0]),
                upper=float(upper[0]),
                gap=float(gaps(upper, lower)),
                trials=sum(all(one.configuration.get(key) == context[key] for key in context) for one in trials),
            )
        )
    return found


def lower_bounds_by_round(gp: GaussianProcess, x: Array, beta: float) -> Array:
    """The lower bounds at the rows of `x` after each number of trials from 1 on: (trials, rows).

    All with the hyper-parameters of now: the Cholesky factor of the first n trials is a part of that of all.
    """
    white = gp.whitened(x)
    mean = np.cumsum(gp.weights[:, None] * white, 0)
    variance = np.maximum(gp.parameters.variance - np.cumsum(white**2, 0), 0)
    return np.asarray(gp.mean + gp.scale * (mean - beta * np.sqrt(variance)))
