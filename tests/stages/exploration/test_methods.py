"""Every method explores; AE-LSVI reaches what chance does not; problems know their best actions."""

from __future__ import annotations

import numpy as np
import pytest

from stages.exploration import contextual_methods, episodes
from stages.exploration.problems import PROBLEMS, branin, hartmann, table
from stages.exploration.simulators import SIMULATORS
from stages.exploration.value_iteration import ValueSettings


@pytest.mark.parametrize("method", list(contextual_methods.METHODS))
def test_every_contextual_method_lowers_the_regret(method: str) -> None:
    curve = contextual_methods.explore(PROBLEMS["branin"](), method, (6, 30), seed=0, initial=5)
    assert curve.mean[1] < curve.mean[0]
    assert curve.worst[1] >= curve.mean[1] >= 0
    assert len(curve.gaps) == 10


def test_active_exploration_finds_the_hard_contexts_that_greedy_bounds_leave() -> None:
    problem = PROBLEMS["half_hard"]()
    active, greedy = (
        contextual_methods.explore(problem, method, (80,), seed=0, initial=10).mean[0]
        for method in ("ae_lsvi", "greedy_ucb")
    )
    assert active < 0.3 * greedy


def test_the_budget_of_tpe_is_split_over_the_contexts() -> None:
    pytest.importorskip("optuna")
    curve = contextual_methods.explore(PROBLEMS["branin"](), "tpe_per_context", (20, 60), seed=0, initial=10)
    assert curve.mean[1] < curve.mean[0]


def test_the_functions_have_their_known_optima() -> None:
    assert branin(np.array([(np.pi + 5) / 15]), np.array([2.275 / 15]))[0] == pytest.approx(-0.397887, abs=1e-4)
    best = np.array([[0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]])
    assert hartmann(best)[0] == pytest.approx(3.32237, abs=1e-4)


def test_the_regret_of_the_best_actions_is_nothing() -> None:
    for make in PROBLEMS.values():
        problem = make()
        assert problem.regret(problem.values.argmax(1)).max() == 0
        assert problem.values.std() == pytest.approx(1)
        assert len(problem.points) == problem.values.size


def test_a_measured_table_has_no_further_noise() -> None:
    problem = table("t", np.array([[128.0], [512.0]]), np.array([[1.0], [4.0], [8.0]]), np.arange(6.0).reshape(2, 3))
    assert problem.noise == 0
    assert problem.contexts.ravel().tolist() == [0, 1]
    curve = contextual_methods.explore(problem, "ae_lsvi", (6,), seed=0, initial=2)
    assert curve.worst[0] == pytest.approx(0)


@pytest.mark.parametrize("method", list(episodes.METHODS))
@pytest.mark.parametrize("source", ["sampled", "visited"])
def test_every_method_asks_for_one_episode_a_round(method: str, source: str) -> None:
    simulator = SIMULATORS["navigation"]()
    settings = episodes.EpisodeSettings(candidates=40, source=source)  # type: ignore[arg-type]
    explorer = episodes.Explorer(simulator, settings, rounds=2, seed=0)
    for _ in range(2):
        explorer.round(episodes.METHODS[method])
    assert explorer.iteration.regressions[0].count == 2 * simulator.horizon
    assert len(explorer.states) <= 40
    assert len(explorer.iteration.history) == 3


def test_each_step_can_have_its_own_data() -> None:
    settings = episodes.EpisodeSettings(candidates=40, values=ValueSettings(pooled=False))
    explorer = episodes.Explorer(SIMULATORS["navigation"](), settings, rounds=3, seed=0)
    for _ in range(3):
        explorer.round(episodes.METHODS["ae_lsvi"])
    assert [one.count for one in explorer.iteration.regressions] == [3] * 12


def test_the_query_is_the_state_with_the_largest_gap_and_its_most_promising_action() -> None:
    settings = episodes.EpisodeSettings(candidates=40, values=ValueSettings(pooled=False))
    explorer = episodes.Explorer(SIMULATORS["navigation"](), settings, rounds=3, seed=0)
    explorer.round(episodes.METHODS["random"])
    for step, (state, action) in enumerate(episodes.active_exploration(explorer)):
        upper, lower = explorer.candidate_bounds(step)
        place = (upper.max(1) - lower.max(1)).argmax()
        assert state.tolist() == explorer.states[place].tolist()
        assert action == upper[place].argmax()


def test_more_rounds_than_exact_regression_takes_use_random_features() -> None:
    settings = episodes.EpisodeSettings(candidates=30, values=ValueSettings(exact_points=20, features=64))
    curve = episodes.explore(SIMULATORS["navigation"](), "ae_lsvi", (1, 3), settings, seed=0)
    assert set(curve.worst) == {"last"}
    assert 0 <= curve.worst["last"][1] <= curve.mean["last"][1] <= 1
