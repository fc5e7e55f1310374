"""Parameters and the unconstrained coordinates in which they are searched and sampled.

positive: theta = exp(eta); uniform(a, b): theta = a + (b - a) sigmoid(eta); otherwise theta = eta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.pde.equation import ParameterPrior


@dataclass(frozen=True)
class Parameters:
    """The parameters of an equation in the order of its configuration."""

    priors: Mapping[str, ParameterPrior]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.priors)

    def constrained(self, eta: Tensor) -> dict[str, Tensor]:
        """theta by name, from eta [..., parameters]."""
        found = {}
        for place, (name, given) in enumerate(self.priors.items()):
            one, prior = eta[..., place], given.parsed
            if prior.kind == "lognormal":
                found[name] = one.exp()
            elif prior.kind == "uniform":
                found[name] = prior.first + (prior.second - prior.first) * torch.sigmoid(one)
            else:
                found[name] = one
        return found

    def slopes(self, eta: Tensor) -> Tensor:
        """d theta / d eta [parameters]."""
        theta, slopes = self.constrained(eta), []
        for name, given in self.priors.items():
            prior, value = given.parsed, theta[name]
            if prior.kind == "lognormal":
                slopes.append(value)
            elif prior.kind == "uniform":
                share = (value - prior.first) / (prior.second - prior.first)
                slopes.append((prior.second - prior.first) * share * (1 - share))
            else:
                slopes.append(torch.ones_like(value))
        return torch.stack(slopes)

    def unconstrained(self, theta: Mapping[str, float]) -> Tensor:
        """eta of parameters. A value that a prior excludes is moved to where it allows it."""
        found = []
        for name, given in self.priors.items():
            prior, value = given.parsed, theta[name]
            if prior.kind == "lognormal":
                found.append(math.log(max(value, 1e-8)))
            elif prior.kind == "uniform":
                share = min(max((value - prior.first) / (prior.second - prior.first), 0.01), 0.99)
                found.append(math.log(share / (1 - share)))
            else:
                found.append(value)
        return torch.tensor(found, dtype=torch.float64)

    def starts(self) -> dict[str, float]:
        """Where a search may start without any data: the given starts, else the medians of the priors."""
        found = {}
        for name, given in self.priors.items():
            prior = given.parsed
            median = math.exp(prior.first) if prior.kind == "lognormal" else prior.first
            if prior.kind == "uniform":
                median = (prior.first + prior.second) / 2
            found[name] = median if given.start is None else given.start
        return found

    def log_prior(self, eta: Tensor) -> Tensor:
        """The log density of eta, without constants."""
        total = torch.zeros((), dtype=torch.float64)
        for place, given in enumerate(self.priors.values()):
            one, prior = eta[place], given.parsed
            if prior.kind == "uniform":  # the logistic density
                total = total + torch.nn.functional.logsigmoid(one) + torch.nn.functional.logsigmoid(-one)
            else:
                total = total - 0.5 * ((one - prior.first) / prior.second) ** 2
        return total

    def prior_gradient(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient and the (positive) curvature of -log prior, each [parameters]."""
        gradient, curvature = [], []
        for place, given in enumerate(self.priors.values()):
            one, prior = eta[place], given.parsed
            if prior.kind == "uniform":
                share = torch.sigmoid(one)
                gradient.append(2 * share - 1)
                curvature.append(2 * share * (1 - share))
            else:
                gradient.append((one - prior.first) / prior.second**2)
                curvature.append(torch.as_tensor(1 / prior.second**2, dtype=torch.float64))
        return torch.stack(gradient), torch.stack(curvature)

    def prior_sd(self) -> Tensor:
        """The standard deviation of eta under the prior [parameters]."""
        return torch.tensor(
            [
                math.pi / math.sqrt(3) if one.parsed.kind == "uniform" else one.parsed.second
                for one in self.priors.values()
            ],
            dtype=torch.float64,
        )
