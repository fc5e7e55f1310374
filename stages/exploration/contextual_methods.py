"""Methods that choose the next context and action, all with the same model and the same recommendation.

Each sees the posterior on the grid of a problem. All recommend, for each context, the action of the largest lower
bound, except TPE, which has no model of the contexts together and recommends the best of what it measured.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages.exploration.contextual import Settings, gaps, width
from stages.exploration.gaussian_process import GaussianProcess, GridPosterior, fit
from stages.exploration.problems import Problem
from stages.exploration.space import Array

REFIT_ROUNDS = 10  # between two searches for hyper-parameters
TPE = "tpe_per_context"


@dataclass(frozen=True)
class View:
    """What a method decides from. `mean`, `deviation`: (contexts, actions); `beta`: the width of the bounds.

    `white`: `gp.whitened` of the problem's points.
    """

    problem: Problem
    gp: GaussianProcess
    white: Array
    mean: Array
    deviation: Array
    beta: float
    round: int
    rng: np.random.Generator

    @property
    def upper(self) -> Array:
        return self.mean + self.beta * self.deviation

    @property
    def lower(self) -> Array:
        return self.mean - self.beta * self.deviation


Choice = tuple[int, int]  # the index of a context and of an action
Method = Callable[[View], Choice]


def active_exploration(view: View) -> Choice:
    """AE-LSVI for episodes of one step: the context with the largest gap, its action with the largest upper bound."""
    context = int(gaps(view.upper, view.lower).argmax())
    return context, int(view.upper[context].argmax())


def random(view: View) -> Choice:
    return int(view.rng.integers(len(view.mean))), int(view.rng.integers(view.mean.shape[1]))


def uncertainty(view: View) -> Choice:
    """Where the posterior deviation is largest, whatever the mean."""
    context, action = np.unravel_index(int(view.deviation.argmax()), view.deviation.shape)
    return int(context), int(action)


def round_robin_ucb(view: View) -> Choice:
    context = view.round % len(view.mean)
    return context, int(view.upper[context].argmax())


def random_context_ucb(view: View) -> Choice:
    context = int(view.rng.integers(len(view.mean)))
    return context, int(view.upper[context].argmax())


def greedy_ucb(view: View) -> Choice:
    """The largest upper bound of all: it exploits the contexts with large values."""
    context, action = np.unravel_index(int(view.upper.argmax()), view.upper.shape)
    return int(context), int(action)


def thompson(view: View) -> Choice:
    """Multi-task Thompson sampling (Char et al. 2019, Offline Contextual Bayesian Optimization).

    In a joint draw for each context, the context in which the best action of the draw improves most on the action of
    the best mean.
    """
    best: tuple[float, Choice] | None = None
    points = view.problem.points.reshape(*view.mean.shape, -1)
    for context, x in enumerate(points):
        columns = slice(context * len(x), (context + 1) * len(x))
        draw = view.gp.joint_samples(x, 1, view.rng, view.white[:, columns])[0]
        action = int(draw.argmax())
        improvement = float(draw[action] - draw[view.mean[context].argmax()])
        if best is None or improvement > best[0]:
            best = improvement, (context, action)
    assert best is not None
    return best[1]


def profile_expected_improvement(view: View) -> Choice:
    """Expected improvement on the best mean of the same context (Ginsbourger et al. 2014, profile EI)."""
    from scipy.stats import norm

    target = np.clip(view.mean.max(1), view.gp.y.min(), view.gp.y.max())[:, None]
    deviation = np.maximum(view.deviation, 1e-12)
    z = (view.mean - target) / deviation
    improvement = deviation * (z * norm.cdf(z) + norm.pdf(z))
    context, action = np.unravel_index(int(improvement.argmax()), improvement.shape)
    return int(context), int(action)


METHODS: Mapping[str, Method] = {
    "ae_lsvi": active_exploration,
    "thompson": thompson,
    "profile_ei": profile_expected_improvement,
    "uncertainty": uncertainty,
    "round_robin_ucb": round_robin_ucb,
    "random_context_ucb": random_context_ucb,
    "greedy_ucb": greedy_ucb,
    "random": random,
}


@dataclass(frozen=True)
class Curve:
    """Regret of the recommendations after each number of trials in `budgets`, and processor seconds.

    `seconds`: of all decisions, each with the posterior after one more trial. `fit_seconds`: of the searches for
    hyper-parameters between them, with the posterior under the new ones: the same work for all methods.
    """

    budgets: tuple[int, ...]
    worst: tuple[float, ...]
    mean: tuple[float, ...]
    seconds: float
    fit_seconds: float = 0.0
    gaps: tuple[float, ...] = ()  # of each context at the end; none of TPE, which has no bounds
    actions: tuple[int, ...] = ()  # recommended at the end


def explore(
    problem: Problem,
    method: str,
    budgets: Sequence[int],
    seed: int,
    initial: int,
    beta: float | None = None,
) -> Curve:
    """Run a method up to the last budget. `initial` random trials come first, the same for all methods."""
    rng, noise = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    start = np.random.default_rng([seed, 3])
    trials = [
        (int(start.integers(len(problem.contexts))), int(start.integers(len(problem.actions)))) for _ in range(initial)
    ]

    def measure(choice: Choice) -> float:
        return float(problem.values[choice] + problem.noise * noise.standard_normal())

    values = [measure(one) for one in trials]
    if method == TPE:
        return _tpe(problem, budgets, seed, trials, values, measure)
    settings = Settings(budget=budgets[-1], beta=beta)
    chosen: dict[int, NDArray[np.int64]] = {}
    begun, fitting = time.process_time(), 0.0
    posterior: GridPosterior | None = None
    while True:
        y = np.array(values)
        if posterior is None or (len(trials) - initial) % REFIT_ROUNDS == 0:
            before = time.process_time()
            known = posterior.gp.parameters if posterior else None
            gp = fit(problem.points[_places(problem, trials)], y, problem.groups, start=known)
            posterior = GridPosterior(gp, problem.points, budgets[-1])
            fitting += time.process_time() - before
        else:
            newest = problem.points[_places(problem, trials[-1:])[0]]
            posterior.append(newest, y, float(y.mean()), float(y.std()))
        view = _view(problem, posterior, settings, rng)
        if len(trials) in budgets:
            chosen[len(trials)] = view.lower.argmax(1)
        if len(trials) >= budgets[-1]:
            break
        trials.append(METHODS[method](view))
        values.append(measure(trials[-1]))
    curve = _curve(problem, budgets, chosen, time.process_time() - begun - fitting)
    return replace(curve, fit_seconds=fitting, gaps=tuple(map(float, gaps(view.upper, view.lower))))


def _view(problem: Problem, posterior: GridPosterior, settings: Settings, rng: np.random.Generator) -> View:
    mean, deviation = (one.reshape(problem.values.shape) for one in posterior.moments())
    count = len(posterior.gp.x)
    beta = width(settings, problem.values.size, count)
    return View(problem, posterior.gp, posterior.white, mean, deviation, beta, count, rng)


def _places(problem: Problem, trials: Sequence[Choice]) -> NDArray[np.int64]:
    """The rows of the problem's points that were tried."""
    return np.array([context * len(problem.actions) + action for context, action in trials])


def _tpe(
    problem: Problem,
    budgets: Sequence[int],
    seed: int,
    trials: list[Choice],
    values: list[float],
    measure: Callable[[Choice], float],
) -> Curve:
    """Optuna's tree-structured Parzen estimator for each context by itself, in turn; actions are the nearest ones."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    names = [str(index) for index in range(problem.actions.shape[1])]
    studies = [
        optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=1000 * seed + index, n_startup_trials=3)
        )
        for index in range(len(problem.contexts))
    ]
    total = np.zeros(problem.values.shape)
    count = np.zeros(problem.values.shape)

    def note(choice: Choice, value: float) -> None:
        total[choice] += value
        count[choice] += 1

    for (context, action), value in zip(trials, values, strict=True):
        point = dict(zip(names, problem.actions[action].tolist(), strict=True))
        with warnings.catch_warnings():  # that the method may change: in Optuna 2, in which it is new
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            studies[context].enqueue_trial(point)
        trial = studies[context].ask()
        for name in names:
            trial.suggest_float(name, 0, 1)
        studies[context].tell(trial, value)
        note((context, action), value)
    chosen: dict[int, NDArray[np.int64]] = {}
    begun = time.process_time()
    for done in range(len(trials), budgets[-1] + 1):
        if done in budgets:
            means = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
            chosen[done] = means.argmax(1)
        if done < budgets[-1]:
            context = done % len(studies)
            trial = studies[context].ask()
            point_at = np.array([trial.suggest_float(name, 0, 1) for name in names])
            action = int(((problem.actions - point_at) ** 2).sum(1).argmin())
            value = measure((context, action))
            studies[context].tell(trial, value)
            note((context, action), value)
    return _curve(problem, budgets, chosen, time.process_time() - begun)


def _curve(problem: Problem, budgets: Sequence[int], chosen: Mapping[int, NDArray[np.int64]], seconds: float) -> Curve:
    regrets = [problem.regret(chosen[budget]) for budget in budgets]
    return Curve(
        budgets=tuple(budgets),
        worst=tuple(float(one.max()) for one in regrets),
        mean=tuple(float(one.mean()) for one in regrets),
        seconds=seconds,
        actions=tuple(map(int, chosen[budgets[-1]])),
    )
