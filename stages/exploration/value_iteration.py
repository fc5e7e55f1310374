"""AE-LSVI: optimistic and pessimistic least-squares value iteration with a kernel (arXiv 2212.09510).

In each round, for steps h = H..1: targets are the rewards plus the optimistic (pessimistic) value of the next state;
the action values are mean + beta * deviation (mean - beta * deviation), clipped to [0, H - h + 1]; and a state's value
is the largest over actions. The deviation is the standard deviation of the regression, not its variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.exploration.regression import Columns, FeatureRegression, KernelRegression, Regression
from stages.exploration.simulators import Indices, Simulator
from stages.exploration.space import Array


@dataclass(frozen=True)
class ValueSettings:
    """`beta`: the width of the bounds in standard deviations, as a share of the largest return that is still possible.

    `pooled`: samples of all steps are one data set, as the dynamics do not depend on the step; otherwise each step
    has its own, as in the paper. Past `exact_points` points of one data set, `features` random ones are used.
    """

    beta: float = 1.0
    length_scale: float = 0.7
    ridge: float = 1e-4
    pooled: bool = True
    exact_points: int = 2000
    features: int = 512
    seed: int = 0


class ValueIteration:
    """The data of all rounds, and the bounds on action values that follow from it.

    `steps` are counted from 0: step h has the bound horizon - h on its values. `planned_points`: how many samples one
    data set will have at the end, which decides between exact regression and random features.
    """

    def __init__(self, simulator: Simulator, settings: ValueSettings, planned_points: int) -> None:
        self.simulator, self.settings = simulator, settings
        self.horizon = simulator.horizon
        self.columns = len(simulator.features(simulator.start[None])[0]) + simulator.actions.shape[1]
        self.exact = planned_points <= settings.exact_points
        sets = 1 if settings.pooled else self.horizon
        made: list[Regression] = [self._regression() for _ in range(sets)]
        self.regressions = made * self.horizon if settings.pooled else made
        self._rewards: list[Array] = [np.empty(0) for _ in made]
        # Of the next states of a data set, under the regression of the step that follows.
        self._next = [Columns(self.regressions[min(step + 1, self.horizon - 1)], self.columns) for step in range(sets)]
        self.upper_weights: list[Array] = [np.empty(0)] * self.horizon
        self.lower_weights: list[Array] = [np.empty(0)] * self.horizon
        self.history: list[list[Array]] = []  # lower weights of all steps, by round; kept for the exact regression

    def _regression(self) -> Regression:
        one = self.settings
        if self.exact:
            return KernelRegression(self.columns, one.length_scale, one.ridge)
        return FeatureRegression(self.columns, one.length_scale, one.ridge, one.features, one.seed)

    def pairs(self, states: Array) -> Array:
        """The kernel's inputs for each state with each action: (states * actions, columns), a state's in a row."""
        features, actions = self.simulator.features(states), self.simulator.actions
        return np.hstack([np.repeat(features, len(actions), 0), np.tile(actions, (len(states), 1))])

    def add(self, step: int, states: Array, actions: Indices, rewards: Array, after: Array) -> None:
        """Add samples of a step."""
        place = 0 if self.settings.pooled else step
        x = np.hstack([self.simulator.features(states), self.simulator.actions[actions]])
        self.regressions[step].add(x)
        self._rewards[place] = np.append(self._rewards[place], rewards)
        self._next[place].add(self.pairs(after))

    def plan(self) -> None:
        """The backward recursion with all samples, and its weights as a round of the history."""
        for step in range(self.horizon - 1, -1, -1):
            place = 0 if self.settings.pooled else step
            rewards = self._rewards[place]
            best_upper, best_lower = np.zeros(len(rewards)), np.zeros(len(rewards))
            if step + 1 < self.horizon and len(rewards):
                upper, lower = self.bounds(step + 1, self._next[place].white)
                best_upper, best_lower = upper.max(1), lower.max(1)
            self.upper_weights[step] = self.regressions[step].weights(rewards + best_upper)
            self.lower_weights[step] = self.regressions[step].weights(rewards + best_lower)
        if self.exact:
            self.history.append(list(self.lower_weights))

    def bounds(self, step: int, white: Array) -> tuple[Array, Array]:
        """The upper and lower bounds on the values of a step: (states, actions) each, from whitened columns."""
        left = self.horizon - step
        spread = self.settings.beta * left * self.regressions[step].deviation(white)
        upper = clipped(self.upper_weights[step] @ white + spread, left)
        lower = clipped(self.lower_weights[step] @ white - spread, left)
        count = len(self.simulator.actions)
        return upper.reshape(-1, count), lower.reshape(-1, count)

    def lower_of_best_round(self, step: int, white: Array) -> Array:
        """For each state and action the largest lower bound of all rounds; the exact regression only."""
        left = self.horizon - step
        sizes = [len(weights[step]) for weights in self.history]
        weights = np.zeros((len(sizes), len(white)))
        for row, one in zip(weights, self.history, strict=True):
            row[: len(one[step])] = one[step]
        squares = np.vstack([np.zeros(white.shape[1]), np.cumsum(white**2, 0)])[sizes]
        spread = self.settings.beta * left * np.sqrt(np.maximum(1 - squares, 0))
        best = clipped(weights @ white - spread, left).max(0)
        return np.asarray(best.reshape(-1, len(self.simulator.actions)))

    def white(self, step: int, states: Array) -> Array:
        """The whitened columns of states with all actions under the regression of a step."""
        x = self.pairs(states)
        return self.regressions[step].extend(np.empty((0, len(x))), x)


def clipped(values: Array, left: float) -> Array:
    """Values within what `left` more steps can give, with rewards in [0, 1]."""
    return np.clip(values, 0, left)


def returns(iteration: ValueIteration, starts: Array, policy: str) -> Array:
    """The return of an episode from each start, divided by the horizon. `policy`: "last" or "best_round"."""
    states, total = starts, np.zeros(len(starts))
    for step in range(iteration.horizon):
        white = iteration.white(step, states)
        if policy == "best_round":
            values = iteration.lower_of_best_round(step, white)
        else:
            values = iteration.bounds(step, white)[1]
        states, rewards = iteration.simulator.step(states, values.argmax(1))
        total += rewards
    return np.asarray(total / iteration.horizon)
