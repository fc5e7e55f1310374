"""The artifact of an inference: the posterior of the parameters and of the components. Served, it predicts both.

posterior.json          the equation, a summary of each parameter, how it was found, and what was noticed
posterior.safetensors   samples of eta and log sigma by chain, draws of the coefficients, the bases
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stages.base import Application, ArtifactError, Config, ExampleRequest, Resources, Servable
from stages.json_files import read_json
from stages.pde.equation import Equation
from stages.pde.kernel_names import KernelName
from stages.pde.observations import read_tensors

if TYPE_CHECKING:
    from stages.pde.basis import Basis
    from stages.pde.observations import Array

FACTS, TENSORS = "posterior.json", "posterior.safetensors"
FACTS_LIMIT_BYTES = 4 << 20
FACTORY = "stages.pde.http:create"
EXAMPLE_POINTS = 5


class ParameterSummary(Config):
    """What is known of a parameter, or of a component's noise."""

    mean: float
    sd: NonNegativeFloat
    low: float  # 2.5 %
    median: float
    high: float  # 97.5 %
    identified: bool  # by the data, rather than by its prior alone
    r_hat: float | None = None  # null: not sampled
    effective_samples: float | None = None

    def phrase(self, name: str) -> str:
        if not self.identified:
            return f"{name} is NOT identified by these data: {self.low:.3g} to {self.high:.3g} are all possible"
        return f"{name} = {self.median:.4g} ({self.low:.4g} to {self.high:.4g})"


class BasisFacts(Config):
    """The expansion of a component."""

    kernel: KernelName
    lengths: tuple[PositiveFloat, ...]  # by coordinate
    origin: float | None = None  # of the first coordinate t, whose length-scale is then of log(t - origin)
    mean: float
    mean_sd: NonNegativeFloat = 0.0  # of the mean of a hidden component, which is its first mode; 0: the mean is known
    scale: PositiveFloat
    energy: float
    modes: PositiveInt


class PosteriorFacts(Config):
    """A posterior apart from its samples."""

    equation: Equation
    augmentation: tuple[str, ...]
    linear: bool
    sampler: str
    parameters: Mapping[str, ParameterSummary]
    noise: Mapping[str, ParameterSummary]  # by observed component: standard deviation
    bases: Mapping[str, BasisFacts]
    ranges: tuple[tuple[float, float], ...]  # of the coordinates, within which it predicts
    temper: PositiveFloat
    grid: tuple[PositiveInt, ...]
    log_evidence: float
    chains: PositiveInt
    samples: PositiveInt  # of each chain
    divergences: NonNegativeInt = 0
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """How far each parameter is known, in one line."""
        return "; ".join(one.phrase(name) for name, one in self.parameters.items())


class Prediction(Config):
    """A component at points: mean and 95 % band of its value, without the noise of a measurement."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Posterior(Servable):
    """Parameters of differential equations and the fields that satisfy them, as samples."""

    @cached_property
    def facts(self) -> PosteriorFacts:
        return read_json(self.path / FACTS, PosteriorFacts, "a description of a posterior", FACTS_LIMIT_BYTES)

    @cached_property
    def tensors(self) -> dict[str, Array]:
        """`x` [chains, samples, eta and log sigma]; `z` [draws, M]; `z_mean` [M]; `eta` [draws, parameters] of the same
        draws; `eta_mean`; for each component C `modes.C` [its M, coordinates] and `nodes.C.AXIS`."""
        import numpy as np

        facts, found = self.facts, read_tensors(self.path / TENSORS)
        size, p = sum(one.modes for one in facts.bases.values()), len(facts.parameters)
        shapes = {
            "x": (facts.chains, facts.samples, p + len(facts.noise)),
            "z_mean": (size,),
            "eta_mean": (p,),
            **{f"modes.{name}": (one.modes, len(facts.ranges)) for name, one in facts.bases.items()},
        }
        for name, shape in shapes.items():
            if name not in found or found[name].shape != shape:
                raise ArtifactError(f"{self.path / TENSORS}: {name} is not what {FACTS} promises")
        if found["z"].shape[1:] != (size,) or found["eta"].shape != (len(found["z"]), p):
            raise ArtifactError(f"{self.path / TENSORS}: the draws are not what {FACTS} promises")
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ArtifactError(f"{self.path / TENSORS} has a value that is not finite")
        return found

    def bases(self) -> list[Basis]:
        import torch

        from stages.pde import basis

        found = []
        for name, one in self.facts.bases.items():
            axes = tuple(
                basis.coordinate(
                    one.kernel,
                    length,
                    torch.from_numpy(self.tensors[f"nodes.{name}.{axis}"]),
                    None if axis else one.origin,
                )
                for axis, length in enumerate(one.lengths)
            )
            modes = torch.from_numpy(self.tensors[f"modes.{name}"]).long()
            found.append(basis.Basis(axes, modes, one.mean, one.scale, one.energy, one.mean_sd))
        return found

    def draws(self, component: str, points: Array, orders: tuple[int, ...] | None = None) -> Array:
        """Draws of a component, or of a derivative, at points [n, coordinates]: [draws, n]."""
        import torch

        names = self.facts.equation.components
        index, bases = names.index(component), self.bases()
        first = sum(one.size for one in bases[:index])
        orders = orders or (0,) * len(self.facts.ranges)
        z = torch.from_numpy(self.tensors["z"][:, first : first + bases[index].size])
        found: Array = (z @ bases[index].at(torch.from_numpy(points), orders).T).numpy()
        return found + bases[index].constant(orders)

    def predict(self, component: str, points: Array) -> Prediction:
        import numpy as np

        drawn = self.draws(component, points)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return Prediction(mean=tuple(drawn.mean(0).tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))

    def application(self) -> Application:
        """POST /v1/predict, from this directory."""
        return Application(
            name="predict",
            factory=FACTORY,
            arguments={"posterior": str(self.path.absolute())},
            resources=Resources(memory_bytes=1 << 30),
        )

    def examples(self) -> tuple[ExampleRequest, ...]:
        """Points along the middle of the observed range, and a point outside it."""
        facts = self.facts
        body: dict[str, list[float]] = {}
        for place, (name, (low, high)) in enumerate(zip(facts.equation.coordinates, facts.ranges, strict=True)):
            shares = [0.5 if place else step / (EXAMPLE_POINTS - 1) for step in range(EXAMPLE_POINTS)]
            body[name] = [low + (high - low) * share for share in shares]
        outside = {name: [10 * abs(high) + 1] for name, (_, high) in zip(body, facts.ranges, strict=True)}
        return (
            ExampleRequest("POST", "/v1/predict", body),
            ExampleRequest("POST", "/v1/predict", outside, status=400),
        )

    def check(self) -> None:
        _ = self.tensors

    def describe(self) -> Mapping[str, object]:
        facts = self.facts
        return {
            "equations": list(facts.equation.equations),
            "parameters": facts.line,
            "log evidence": facts.log_evidence,
            "sampler": facts.sampler,
        }


def write(path: Path, facts: PosteriorFacts, tensors: Mapping[str, Array]) -> Posterior:
    """Write a posterior into the directory `path`."""
    from stages.pde.observations import write_tensors

    write_tensors(path / TENSORS, tensors)
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return Posterior(path)
