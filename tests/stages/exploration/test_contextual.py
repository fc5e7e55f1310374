"""The gap rule, batches, failures, replicates, and planted optima that a fixed budget finds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from stages.exploration.contextual import (
    Settings,
    Trial,
    _relative_noise,
    answers,
    gaps,
    lower_bounds_by_round,
    model,
    propose,
    width,
)
from stages.exploration.gaussian_process import GaussianProcess, Hyperparameters
from stages.exploration.space import Choice, Interval, Parameter, Space, Value

SIZES = (8, 16, 32)
SPACE = Space((Parameter("size", Choice(SIZES, ordered=True)),), (Parameter("x", Interval(0, 1)),))
PLANTED = {8: 0.2, 16: 0.5, 32: 0.9}


def value(configuration: Mapping[str, Value]) -> float:
    """A peak at another place in each context."""
    return -(10 * (float(configuration["x"] or 0) - PLANTED[int(configuration["size"] or 0)]) ** 2)


def explored(settings: Settings, batch: int = 1) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < settings.budget:
        pending = propose(SPACE, trials, settings, min(batch, settings.budget - len(trials)))
        trials += [Trial(one, (value(one),)) for one in pending]
    return trials


def test_the_gap_is_the_best_upper_minus_the_best_lower_bound() -> None:
    # Two contexts with three actions. In the first, the best upper bound (5) and the best lower bound (2) are those of
    # different actions; in the second, 4 and 3.5 are those of the same.
    upper = np.array([[5.0, 3.0, 1.0], [2.0, 4.0, 3.0]])
    lower = np.array([[1.0, 2.0, 0.0], [1.0, 3.5, -9.0]])
    assert gaps(upper, lower).tolist() == [3.0, 0.5]


def test_the_next_trial_is_in_the_context_that_is_known_least() -> None:
    settings = Settings(budget=40, initial=0)
    known = [
        Trial(one, (value(one),))
        for size in (8, 32)
        for x in np.linspace(0, 1, 9)
        for one in [{"size": size, "x": float(x)}]
    ]
    few = [Trial(one, (value(one),)) for x in (0.0, 1.0) for one in [{"size": 16, "x": x}]]
    (chosen,) = propose(SPACE, [*known, *few], settings)
    assert chosen["size"] == 16
    assert 0.2 < float(chosen["x"] or 0) < 0.8


def test_planted_optima_are_found_in_every_context_within_thirty_trials() -> None:
    settings = Settings(budget=30)
    for answer in answers(SPACE, explored(settings), settings):
        best = PLANTED[int(answer.context["size"] or 0)]
        assert float(answer.action["x"] or 0) == pytest.approx(best, abs=0.05)
        assert answer.lower <= answer.mean <= answer.upper
        assert answer.trials > 2


@pytest.mark.parametrize("policy", ["last", "best_round"])
def test_both_policies_find_the_planted_optima(policy: str) -> None:
    settings = Settings(budget=24, policy=policy)  # type: ignore[arg-type]
    found = answers(SPACE, explored(settings, batch=4), settings)
    assert all(value({**one.context, **one.action}) > -0.1 for one in found)


def test_a_batch_has_different_trials_and_does_not_depend_on_chance() -> None:
    settings = Settings(budget=40)
    trials = explored(Settings(budget=12))
    batch = propose(SPACE, trials, settings, 4)
    assert len({tuple(one.items()) for one in batch}) == 4
    assert batch == propose(SPACE, trials, settings, 4)


def test_the_first_trials_visit_every_context() -> None:
    found = propose(SPACE, [], Settings(budget=40, initial=6), 6)
    assert sorted(int(one["size"] or 0) for one in found) == [8, 8, 16, 16, 32, 32]


def test_a_failed_trial_counts_as_worse_than_the_worst_success() -> None:
    good = [Trial({"size": 8, "x": x}, (y,)) for x, y in ((0.0, 1.0), (0.5, 3.0))]
    failed = Trial({"size": 8, "x": 1.0}, ())
    gp = model(SPACE, [*good, failed], Settings(budget=9, failure_penalty=2.0))
    assert gp.y.tolist() == [1.0, 3.0, 1.0 - 2.0 * 1.0]  # the two successes have the standard deviation 1
    assert Trial({}, (math.nan,)).failed


def test_nothing_but_failures_is_still_a_model() -> None:
    trials = [Trial({"size": 8, "x": x}, ()) for x in (0.0, 0.5, 1.0)]
    assert len(propose(SPACE, trials, Settings(budget=9, initial=0), 2)) == 2


def test_replicates_lower_the_noise_and_their_spread_counts() -> None:
    quiet = Trial({"size": 8, "x": 0.1}, (1.0, 1.1, 0.9, 1.0))
    loud = Trial({"size": 8, "x": 0.2}, (0.0, 2.0, -2.0, 4.0))
    single = Trial({"size": 8, "x": 0.3}, (1.0,))
    noise = _relative_noise([quiet, loud, single])
    assert noise[0] < noise[1]
    assert noise[2] == 1.0
    assert _relative_noise([quiet])[0] == pytest.approx(1 / 4)  # the only one: its spread is the pooled one


def test_the_width_is_the_given_one_or_that_of_the_union_bound() -> None:
    assert width(Settings(budget=1, beta=1.5), 100, 10) == 1.5
    theory = math.sqrt(2 * math.log(100 * 10**2 * math.pi**2 / 0.6))
    assert width(Settings(budget=1, beta_scale=1.0), 100, 10) == pytest.approx(theory)
    assert width(Settings(budget=1), 100, 10) == pytest.approx(theory / 5**0.5)


def test_lower_bounds_of_earlier_rounds_are_those_of_a_model_with_fewer_trials() -> None:
    rng = np.random.default_rng(0)
    x, y, at = rng.random((6, 1)), rng.random(6), rng.random((4, 1))
    parameters = Hyperparameters((0.3,), 1.0, 0.1)
    groups = np.array([0])
    rounds = lower_bounds_by_round(GaussianProcess(x, y, groups, parameters, np.ones(6)), at, 2.0)
    for count in range(1, 7):
        mean, deviation = GaussianProcess(x[:count], y[:count], groups, parameters, np.ones(count)).posterior(at)
        assert rounds[count - 1] == pytest.approx(mean - 2 * deviation)
