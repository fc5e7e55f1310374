"""The backward recursion, its clipping and its gaps, against cases by hand and a dense computation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from stages.exploration import episodes, regression
from stages.exploration.contextual import gaps
from stages.exploration.regression import Columns, FeatureRegression, KernelRegression, squared_exponential
from stages.exploration.simulators import Indices, Navigation
from stages.exploration.space import Array
from stages.exploration.value_iteration import ValueIteration, ValueSettings, clipped, returns

SETTINGS = ValueSettings(beta=0.5, length_scale=0.8, ridge=0.01)


@dataclass(frozen=True)
class Line:
    """A walk on a line: an action moves by half; the reward is 1 near the right end."""

    horizon: int = 3
    actions = np.array([[-1.0], [1.0]])
    start = np.array([0.0])

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return 2 * rng.random((count, 1)) - 1

    def features(self, states: Array) -> Array:
        return states

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        after = np.clip(states + 0.5 * self.actions[actions], -1, 1)
        return after, (after[:, 0] > 0.7).astype(np.float64)


def filled(settings: ValueSettings, count: int = 12) -> ValueIteration:
    line = Line()
    iteration = ValueIteration(line, settings, 100)
    rng = np.random.default_rng(0)
    for step in range(line.horizon):
        states, actions = line.sample(count, rng), rng.integers(2, size=count)
        after, rewards = line.step(states, actions)
        iteration.add(step, states, actions, rewards, after)
    iteration.plan()
    return iteration


def test_values_are_clipped_to_what_the_steps_that_are_left_can_give() -> None:
    assert clipped(np.array([-0.4, 0.3, 2.5]), 2).tolist() == [0.0, 0.3, 2.0]


def test_nothing_known_leaves_the_whole_range_and_the_largest_gap() -> None:
    iteration = ValueIteration(Line(), replace(SETTINGS, beta=1.0), 100)
    iteration.plan()
    for step, left in enumerate((3, 2, 1)):  # by hand: mean 0, deviation 1, width 1 * left
        upper, lower = iteration.bounds(step, iteration.white(step, np.array([[0.2]])))
        assert upper.tolist() == [[left, left]]
        assert lower.tolist() == [[0, 0]]
        assert gaps(upper, lower).tolist() == [left]


@pytest.mark.parametrize("pooled", [True, False])
def test_the_recursion_is_that_of_dense_inverses(pooled: bool) -> None:
    settings = replace(SETTINGS, pooled=pooled)
    line, rng = Line(), np.random.default_rng(0)
    x, rewards, after = [], [], []
    iteration = ValueIteration(line, settings, 100)
    for step in range(3):
        states, actions = line.sample(8, rng), rng.integers(2, size=8)
        moved, reward = line.step(states, actions)
        iteration.add(step, states, actions, reward, moved)
        x.append(np.hstack([states, line.actions[actions]]))
        rewards.append(reward)
        after.append(moved)
    iteration.plan()
    at = iteration.pairs(line.sample(5, rng))
    if pooled:
        x, rewards, after = ([np.concatenate(one)] * 3 for one in (x, rewards, after))

    def dense(step: int, upper: bool, points: Array) -> Array:
        """The bound at points, by recursion to the last step: standard deviation, not variance."""
        targets = rewards[step].copy()
        if step < 2:
            targets += dense(step + 1, upper, iteration.pairs(after[step])).reshape(-1, 2).max(1)
        own, points = x[step] / 0.8, points / 0.8
        inverse = np.linalg.inv(squared_exponential(own, own) + 0.01 * np.eye(len(own)))
        cross = squared_exponential(points, own)
        variance = 1 - np.einsum("ij,jk,ik->i", cross, inverse, cross)
        spread = 0.5 * (3 - step) * np.sqrt(variance)
        return clipped(cross @ inverse @ targets + (spread if upper else -spread), 3 - step)

    for step in range(3):
        white = iteration.regressions[step].extend(np.empty((0, len(at))), at)
        upper, lower = iteration.bounds(step, white)
        assert upper.ravel() == pytest.approx(dense(step, True, at), abs=1e-6)
        assert lower.ravel() == pytest.approx(dense(step, False, at), abs=1e-6)


def test_the_best_round_is_the_largest_lower_bound_of_all_rounds() -> None:
    iteration = filled(SETTINGS, 6)
    states = np.linspace(-1, 1, 7)[:, None]
    first = iteration.bounds(0, iteration.white(0, states))[1]
    rng = np.random.default_rng(1)
    more, actions = iteration.simulator.sample(9, rng), rng.integers(2, size=9)
    after, rewards = iteration.simulator.step(more, actions)
    iteration.add(0, more, actions, rewards, after)
    iteration.plan()
    second = iteration.bounds(0, iteration.white(0, states))[1]
    best = iteration.lower_of_best_round(0, iteration.white(0, states))
    assert best == pytest.approx(np.maximum(first, second), abs=1e-6)


def test_columns_that_grow_are_those_of_all_points_at_once() -> None:
    rng = np.random.default_rng(0)
    x, at = rng.random((10, 2)), rng.random((6, 2))
    growing = KernelRegression(2, 0.5, 0.01)
    columns = Columns(growing, 2)
    for part, points in ((x[:4], at[:2]), (x[4:5], at[2:]), (x[5:], at[:0])):
        growing.add(part)
        columns.add(points)
    whole = KernelRegression(2, 0.5, 0.01)
    whole.add(x)
    assert columns.white == pytest.approx(whole.extend(np.empty((0, 6)), at))


def test_random_features_come_near_the_exact_regression() -> None:
    rng = np.random.default_rng(0)
    x, at = rng.random((60, 2)), rng.random((20, 2))
    y = np.sin(4 * x[:, 0]) * x[:, 1]
    exact, features = KernelRegression(2, 0.7, 0.01), FeatureRegression(2, 0.7, 0.01, features=2000, seed=0)
    results = []
    for one in (exact, features):
        one.add(x)
        white = one.extend(np.empty((0, 20)), at)
        results.append((one.weights(y) @ white, one.deviation(white)))
    assert results[1][0] == pytest.approx(results[0][0], abs=0.03)
    assert results[1][1] == pytest.approx(results[0][1], abs=0.03)


def test_many_points_are_left_to_random_features() -> None:
    assert ValueIteration(Line(), SETTINGS, 2000).exact
    assert not ValueIteration(Line(), SETTINGS, 2001).exact


@pytest.mark.parametrize("policy", ["last", "best_round"])
def test_the_policies_walk_to_the_reward(policy: str) -> None:
    iteration = filled(ValueSettings(beta=0.1, length_scale=0.5, ridge=1e-3), 40)
    found = returns(iteration, np.array([[0.9], [0.3], [-0.2]]), policy)
    assert found == pytest.approx([1.0, 1.0, 2 / 3])


def test_columns_in_chunks_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    at, points = rng.random((17, 2)), rng.random((9, 2))
    whole, growing = KernelRegression(2, 0.5, 1e-3), KernelRegression(2, 0.5, 1e-3)
    monkeypatch.setattr(regression, "CHUNK_POINTS", 7)
    columns = Columns(growing, 2, together=3)
    columns.add(at[:4])
    growing.add(points[:5])
    columns.add(at[4:])
    growing.add(points[5:])
    whole.add(points)
    assert [white.shape[1] for white in columns.chunks()] == [6, 6, 5]
    assert columns.white == pytest.approx(whole.extend(np.empty((0, 17)), at))
    assert len(columns) == 17


def test_a_method_chooses_the_same_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> list[tuple[list[float], int]]:
        explorer = episodes.Explorer(Navigation(), episodes.EpisodeSettings(candidates=40), 2, seed=0)
        explorer.round(episodes.active_exploration)
        found = [*episodes.active_exploration(explorer), *episodes.uncertainty(explorer)]
        return [(state.tolist(), action) for state, action in found]

    wanted = chosen()
    monkeypatch.setattr(regression, "CHUNK_POINTS", 23)
    assert chosen() == wanted
