"""Methods that choose what a simulator is asked for, all with the same value iteration and the same policies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stages.exploration.contextual import gaps
from stages.exploration.regression import Columns
from stages.exploration.simulators import Simulator
from stages.exploration.space import Array
from stages.exploration.value_iteration import ValueIteration, ValueSettings, returns

EVALUATED_STARTS = 64
POLICIES = ("last", "best_round")


@dataclass(frozen=True)
class EpisodeSettings:
    """`candidates` states are compared by a method that chooses states: from the whole space, or those visited."""

    candidates: int = 500
    source: Literal["sampled", "visited"] = "sampled"
    values: ValueSettings = field(default_factory=ValueSettings)


class Explorer:
    """One method on one simulator: each round asks for `horizon` samples."""

    def __init__(self, simulator: Simulator, settings: EpisodeSettings, rounds: int, seed: int) -> None:
        self.simulator, self.settings = simulator, settings
        self.rng = np.random.default_rng(seed)
        points = rounds * (simulator.horizon if settings.values.pooled else 1)
        self.iteration = ValueIteration(simulator, settings.values, points)
        self.states: Array = np.empty((0, len(simulator.start)))
        width, actions = self.iteration.columns, len(simulator.actions)
        own = {id(one): Columns(one, width, actions) for one in self.iteration.regressions}
        self._columns = [own[id(one)] for one in self.iteration.regressions]
        sampled = settings.source == "sampled"
        self.offer(simulator.sample(settings.candidates, self.rng) if sampled else simulator.start[None])
        self.iteration.plan()

    def offer(self, states: Array) -> None:
        """Add candidate states, up to the number in the settings."""
        states = states[: self.settings.candidates - len(self.states)]
        self.states = np.vstack([self.states, states])
        for columns in {id(one): one for one in self._columns}.values():
            columns.add(self.iteration.pairs(states))

    def candidate_bounds(self, step: int) -> tuple[Array, Array]:
        upper, lower = zip(*(self.iteration.bounds(step, white) for white in self._columns[step].chunks()), strict=True)
        return np.vstack(upper), np.vstack(lower)

    def candidate_deviation(self, step: int) -> Array:
        regression = self.iteration.regressions[step]
        deviations = [regression.deviation(white) for white in self._columns[step].chunks()]
        return np.concatenate(deviations).reshape(len(self.states), -1)

    def round(self, method: Method) -> None:
        """Ask for the samples of one round and plan with them."""
        for step, (state, action) in enumerate(method(self)):
            after, rewards = self.simulator.step(state[None], np.array([action]))
            self.iteration.add(step, state[None], np.array([action]), rewards, after)
            if self.settings.source == "visited":
                self.offer(after)
        self.iteration.plan()

    def follow(self, state: Array, choose: Callable[[int, Array], int]) -> list[tuple[Array, int]]:
        """The states and actions of an episode."""
        found = []
        for step in range(self.simulator.horizon):
            action = choose(step, state)
            found.append((state, action))
            state = self.simulator.step(state[None], np.array([action]))[0][0]
        return found

    def optimistic(self, step: int, state: Array) -> int:
        return int(self.iteration.bounds(step, self.iteration.white(step, state[None]))[0].argmax())

    def expected(self, step: int, state: Array) -> int:
        """By the mean of both regressions."""
        white = self.iteration.white(step, state[None])
        weights = self.iteration.upper_weights[step] + self.iteration.lower_weights[step]
        return int((weights @ white).argmax())


Method = Callable[[Explorer], Sequence[tuple[Array, int]]]


def active_exploration(explorer: Explorer) -> list[tuple[Array, int]]:
    """AE-LSVI: for each step, the state with the largest gap, and its action with the largest upper bound.

    With pooled samples a state is asked for once in a round, because the steps would agree on it.
    """
    found: list[tuple[Array, int]] = []
    free = np.ones(len(explorer.states), dtype=bool)
    for step in range(explorer.simulator.horizon):
        upper, lower = explorer.candidate_bounds(step)
        place = int(np.where(free, gaps(upper, lower), -1).argmax())
        free[place] = not explorer.settings.values.pooled or free.sum() == 1
        found.append((explorer.states[place], int(upper[place].argmax())))
    return found


def active_starts(explorer: Explorer) -> list[tuple[Array, int]]:
    """An episode by the upper bounds from the state with the largest gap at the first step (the authors' code)."""
    place = int(gaps(*explorer.candidate_bounds(0)).argmax())
    return explorer.follow(explorer.states[place], explorer.optimistic)


def lsvi_ucb(explorer: Explorer) -> list[tuple[Array, int]]:
    """An episode by the upper bounds from the fixed start."""
    return explorer.follow(explorer.simulator.start, explorer.optimistic)


def greedy(explorer: Explorer) -> list[tuple[Array, int]]:
    """An episode by the means from a random start."""
    return explorer.follow(explorer.simulator.sample(1, explorer.rng)[0], explorer.expected)


def random(explorer: Explorer) -> list[tuple[Array, int]]:
    """Random actions in random states."""
    states = explorer.simulator.sample(explorer.simulator.horizon, explorer.rng)
    actions = explorer.rng.integers(len(explorer.simulator.actions), size=len(states))
    return list(zip(states, actions.tolist(), strict=True))


def uncertainty(explorer: Explorer) -> list[tuple[Array, int]]:
    """The states and actions of the largest deviations, a state once in a round."""
    found: list[tuple[Array, int]] = []
    free = np.ones(len(explorer.states), dtype=bool)
    for step in range(explorer.simulator.horizon):
        deviation = explorer.candidate_deviation(step)
        place = int(np.where(free, deviation.max(1), -1).argmax())
        free[place] = free.sum() == 1
        found.append((explorer.states[place], int(deviation[place].argmax())))
    return found


METHODS: Mapping[str, Method] = {
    "ae_lsvi": active_exploration,
    "active_starts": active_starts,
    "lsvi_ucb": lsvi_ucb,
    "greedy": greedy,
    "uncertainty": uncertainty,
    "random": random,
}


@dataclass(frozen=True)
class EpisodeCurve:
    """Worst and mean return over initial states, as a share of the horizon, after each number of rounds.

    By policy: from the last lower bounds, and from the best of all rounds (absent with random features).
    """

    rounds: tuple[int, ...]
    worst: Mapping[str, tuple[float, ...]]
    mean: Mapping[str, tuple[float, ...]]
    seconds: float
    states: Array  # candidates: (states, columns)
    gaps: Array  # of each candidate at the first step, at the end
    actions: Array  # that the last lower bounds choose there, at the first step: (states, columns)


def explore(
    simulator: Simulator, method: str, rounds: Sequence[int], settings: EpisodeSettings, seed: int
) -> EpisodeCurve:
    """Run a method for the last of `rounds` and evaluate it after each of them."""
    explorer = Explorer(simulator, settings, rounds[-1], seed)
    starts = simulator.sample(EVALUATED_STARTS, np.random.default_rng(12345))  # the same for all
    policies = POLICIES if explorer.iteration.exact else POLICIES[:1]
    found: dict[str, list[Array]] = {policy: [] for policy in policies}
    seconds = 0.0
    for done in range(1, rounds[-1] + 1):
        begun = time.process_time()
        explorer.round(METHODS[method])
        seconds += time.process_time() - begun
        if done in rounds:
            for policy in policies:
                found[policy].append(returns(explorer.iteration, starts, policy))
    upper, lower = explorer.candidate_bounds(0)
    return EpisodeCurve(
        rounds=tuple(rounds),
        worst={policy: tuple(float(one.min()) for one in values) for policy, values in found.items()},
        mean={policy: tuple(float(one.mean()) for one in values) for policy, values in found.items()},
        seconds=seconds,
        states=explorer.states,
        gaps=gaps(upper, lower),
        actions=simulator.actions[lower.argmax(1)],
    )
