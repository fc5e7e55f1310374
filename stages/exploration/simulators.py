"""Environments with generative access: from any state, any action can be tried.

States are rows; all of a batch are moved at once. Rewards are in [0, 1], and an episode has `horizon` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.exploration.space import Array

Indices = NDArray[np.int64]


class Simulator(Protocol):
    """What exploration needs of an environment."""

    @property
    def horizon(self) -> int:
        """Steps of an episode."""

    @property
    def actions(self) -> Array:
        """(actions, columns), in [-1, 1]."""

    @property
    def start(self) -> Array:
        """The state in which the episodes of a learner begin that cannot choose one."""

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """`count` states from the whole space, as rows."""

    def features(self, states: Array) -> Array:
        """What a kernel compares: a row for each state, about [-1, 1]; angles as sine and cosine."""

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        """The next states, and the rewards of the actions (by index) in the states."""


def _uniform(low: Array, high: Array, count: int, rng: np.random.Generator) -> Array:
    return np.asarray(low + (high - low) * rng.random((count, len(low))))


@dataclass(frozen=True)
class Pendulum:
    """gymnasium's Pendulum-v1: angle from upright and angular velocity. A step repeats its torque four times."""

    horizon: int = 15
    repeat: int = 4
    actions = np.linspace(-1, 1, 5)[:, None]  # of the largest torque, 2
    start = np.array([np.pi, 0.0])

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return _uniform(np.array([-np.pi, -4.0]), np.array([np.pi, 4.0]), count, rng)

    def features(self, states: Array) -> Array:
        return np.stack([np.cos(states[:, 0]), np.sin(states[:, 0]), states[:, 1] / 8], axis=1)

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        """The reward is gymnasium's, scaled from its range to [0, 1]; the mean over the repeats."""
        angle, speed = states.T
        torque = 2 * self.actions[actions, 0]
        total = np.zeros(len(states))
        for _ in range(self.repeat):
            off = (angle + np.pi) % (2 * np.pi) - np.pi
            total += 1 - (off**2 + 0.1 * speed**2 + 0.001 * torque**2) / (np.pi**2 + 0.1 * 64 + 0.001 * 4)
            speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
            angle = angle + speed * 0.05
        return np.stack([angle, speed], axis=1), total / self.repeat


@dataclass(frozen=True)
class MountainCar:
    """gymnasium's MountainCar-v0: position and velocity; a step repeats its action eight times.

    The reward is 1 at the goal, which is not left again, and elsewhere a tenth of the height.
    """

    horizon: int = 20
    repeat: int = 8
    actions = np.array([[-1.0], [0.0], [1.0]])
    start = np.array([-0.5, 0.0])

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return _uniform(np.array([-1.2, -0.07]), np.array([0.5, 0.07]), count, rng)

    def features(self, states: Array) -> Array:
        return np.stack([(states[:, 0] + 0.35) / 0.85, states[:, 1] / 0.07], axis=1)

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        position, speed = states.T
        push = self.actions[actions, 0]
        arrived = position >= 0.5
        for _ in range(self.repeat):
            moved = np.clip(speed + push * 0.001 - 0.0025 * np.cos(3 * position), -0.07, 0.07)
            place = np.clip(position + moved, -1.2, 0.6)
            moved = np.where((place <= -1.2) & (moved < 0), 0.0, moved)
            position, speed = np.where(arrived, position, place), np.where(arrived, speed, moved)
            arrived = arrived | (position >= 0.5)
        reward = np.where(arrived, 1.0, 0.05 * (1 + np.sin(3 * position)))
        return np.stack([np.where(arrived, 0.5, position), np.where(arrived, 0.0, speed)], axis=1), reward


@dataclass(frozen=True)
class CartPoleSwingUp:
    """A cart between walls with a pole that hangs at first: position, speed, angle from upright, angular velocity.

    The masses and lengths are those of gymnasium's CartPole-v1. The reward is the height of the pole's tip, times how
    near the cart is to the middle.
    """

    horizon: int = 20
    repeat: int = 5
    actions = np.array([[-1.0], [0.0], [1.0]])  # of the largest force, 10
    start = np.array([0.0, 0.0, np.pi, 0.0])

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return _uniform(np.array([-2.0, -2.0, -np.pi, -5.0]), np.array([2.0, 2.0, np.pi, 5.0]), count, rng)

    def features(self, states: Array) -> Array:
        x, speed, angle, turn = states.T
        return np.stack([x / 2.4, speed / 5, np.cos(angle), np.sin(angle), turn / 10], axis=1)

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        x, speed, angle, turn = states.T
        force = 10 * self.actions[actions, 0]
        total = np.zeros(len(states))
        for _ in range(self.repeat):
            sine, cosine = np.sin(angle), np.cos(angle)
            pull = (force + 0.05 * turn**2 * sine) / 1.1
            turning = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
            pushed = pull - 0.05 * turning * cosine / 1.1
            x, speed = x + 0.02 * speed, speed + 0.02 * pushed
            angle, turn = angle + 0.02 * turn, np.clip(turn + 0.02 * turning, -15, 15)
            wall = np.abs(x) > 2.4
            x, speed = np.clip(x, -2.4, 2.4), np.where(wall, 0.0, speed)
            total += (1 + np.cos(angle)) / 2 * np.exp(-(x**2) / 4)
        return np.stack([x, speed, angle, turn], axis=1), total / self.repeat


@dataclass(frozen=True)
class Navigation:
    """A point in the unit square, a wall with a gap, and a goal behind it. The reward falls with the distance to it."""

    horizon: int = 12
    stride: float = 0.15
    actions = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    start = np.array([0.1, 0.1])
    goal = np.array([0.85, 0.2])

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return rng.random((count, 2))

    def features(self, states: Array) -> Array:
        return 2 * states - 1

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        after = np.clip(states + self.stride * self.actions[actions], 0, 1)
        crossed = (states[:, 0] < 0.5) != (after[:, 0] < 0.5)
        stopped = crossed & (after[:, 1] < 0.7)
        after = np.where(stopped[:, None], states, after)
        return after, np.exp(-((after - self.goal) ** 2).sum(1) / 0.25)


SIMULATORS: Mapping[str, Callable[[], Simulator]] = {
    "pendulum": Pendulum,
    "mountain_car": MountainCar,
    "cart_pole_swing_up": CartPoleSwingUp,
    "navigation": Navigation,
}


class GymnasiumSimulator:
    """Any environment of gymnasium whose whole state is `env.unwrapped.state`, an array of numbers.

    Rewards are scaled from `rewards` (least, largest) to [0, 1]. `low` and `high` bound the states that are sampled;
    they are the bounds of the observations unless given. A continuous action gets `levels` values in each dimension of
    which there is one. Raises ValueError for an environment without such a state, or without bounds.
    """

    def __init__(
        self, name: str, horizon: int, rewards: tuple[float, float], low: Array | None = None,
        high: Array | None = None, levels: int = 5,
    ) -> None:  # fmt: skip
        import gymnasium

        self.env: Any = gymnasium.make(name, disable_env_checker=True).unwrapped
        self.env.reset(seed=0)
        self.horizon = horizon
        state = getattr(self.env, "state", None)
        if state is None:
            raise ValueError(f"{name} has no `state`; expected an environment whose state can be read and set")
        self.start = np.array(state, dtype=np.float64)
        space: Any = self.env.observation_space
        self.low = np.asarray(space.low if low is None else low, dtype=np.float64)
        self.high = np.asarray(space.high if high is None else high, dtype=np.float64)
        if self.low.shape != self.start.shape or not np.isfinite([self.low, self.high]).all():
            raise ValueError(f"{name}: give the bounds of its {self.start.size} state variables, `low` and `high`")
        self.rewards = rewards
        action: Any = self.env.action_space
        if isinstance(action, gymnasium.spaces.Discrete):
            self.actions = np.linspace(-1, 1, int(action.n))[:, None]
            self.choices: list[Any] = list(range(int(action.n)))
        elif action.shape == (1,):
            self.actions = np.linspace(-1, 1, levels)[:, None]
            span = np.linspace(action.low[0], action.high[0], levels)
            self.choices = [np.array([one], dtype=np.float32) for one in span]
        else:
            raise ValueError(f"{name}: its actions are {action}; expected numbered ones, or one number")

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        return _uniform(self.low, self.high, count, rng)

    def features(self, states: Array) -> Array:
        return np.asarray(2 * (states - self.low) / (self.high - self.low) - 1)

    def step(self, states: Array, actions: Indices) -> tuple[Array, Array]:
        low, high = self.rewards
        after, rewards = np.empty_like(states), np.empty(len(states))
        for index, (state, action) in enumerate(zip(states, actions, strict=True)):
            self.env.state = state.copy()
            _, reward, *_ = self.env.step(self.choices[action])
            after[index] = self.env.state
            rewards[index] = np.clip((float(reward) - low) / (high - low), 0, 1)
        return after, rewards
