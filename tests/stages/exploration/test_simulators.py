"""Simulators keep to their spaces and agree with gymnasium where it has the same environment."""

from __future__ import annotations

import numpy as np
import pytest

from stages.exploration.simulators import SIMULATORS, GymnasiumSimulator, MountainCar, Pendulum


@pytest.mark.parametrize("name", list(SIMULATORS))
def test_rewards_and_features_are_bounded(name: str) -> None:
    simulator = SIMULATORS[name]()
    rng = np.random.default_rng(0)
    states = simulator.sample(200, rng)
    for _ in range(simulator.horizon):
        states, rewards = simulator.step(states, rng.integers(len(simulator.actions), size=len(states)))
        assert ((rewards >= 0) & (rewards <= 1)).all()
        assert np.abs(simulator.features(states)).max() <= 1.6
    assert simulator.features(simulator.start[None]).shape == (1, simulator.features(states).shape[1])


def test_the_pendulum_is_that_of_gymnasium() -> None:
    theirs = GymnasiumSimulator(
        "Pendulum-v1", 15, (-16.2736044, 0.0), low=np.array([-np.pi, -8.0]), high=np.array([np.pi, 8.0])
    )
    ours = Pendulum(repeat=1)
    states, actions = ours.sample(40, np.random.default_rng(0)), np.arange(40) % 5
    for mine, reference in zip(ours.step(states, actions), theirs.step(states, actions), strict=True):
        assert mine == pytest.approx(reference, abs=1e-5)


def test_the_mountain_car_is_that_of_gymnasium() -> None:
    theirs = GymnasiumSimulator("MountainCar-v0", 20, (-1.0, 0.0))
    ours = MountainCar(repeat=1)
    states, actions = ours.sample(40, np.random.default_rng(0)), np.arange(40) % 3
    after, expected = ours.step(states, actions)[0], theirs.step(states, actions)[0]
    before_goal = expected[:, 0] < 0.5
    assert after[before_goal] == pytest.approx(expected[before_goal], abs=1e-6)
    assert theirs.features(theirs.low[None]).tolist() == [[-1.0, -1.0]]


def test_a_car_at_the_goal_stays_there_and_is_paid() -> None:
    states, rewards = MountainCar().step(np.array([[0.49, 0.05]]), np.array([2]))
    assert rewards.tolist() == [1.0]
    after, again = MountainCar().step(states, np.array([0]))
    assert after.tolist() == states.tolist()
    assert again.tolist() == [1.0]


def test_the_wall_stops_what_does_not_go_through_its_gap() -> None:
    navigation = SIMULATORS["navigation"]()
    states = np.array([[0.45, 0.2], [0.45, 0.9]])
    after, _ = navigation.step(states, np.array([1, 1]))
    assert after[0].tolist() == [0.45, 0.2]
    assert after[1, 0] > 0.5


def test_an_environment_whose_state_cannot_be_set_is_refused() -> None:
    with pytest.raises(ValueError, match="give the bounds"):
        GymnasiumSimulator("Pendulum-v1", 15, (-17.0, 0.0))
