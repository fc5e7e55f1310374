"""The artifact of smoothing: the hyper-parameters of the Gaussian process of each component, in smoothed.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import NonNegativeFloat, PositiveFloat

from stages.base import Artifact, Config
from stages.json_files import read_json
from stages.pde.kernel_names import KernelName

FACTS = "smoothed.json"
FACTS_LIMIT_BYTES = 1 << 20


class SmoothedComponent(Config):
    """The Gaussian process of a component. A hidden one has what the observed ones have on average, and an
    unknown mean."""

    kernel: KernelName
    lengths: tuple[PositiveFloat, ...]  # by coordinate
    mean: float
    mean_sd: NonNegativeFloat = 0.0  # of a hidden component's mean, which the equation then tells; 0: the mean is known
    scale: PositiveFloat
    noise: PositiveFloat
    observed: bool
    log_likelihoods: tuple[float, ...] = ()  # of each start of the search


class SmoothedFacts(Config):
    """Of every component, in the order of the observations."""

    components: Mapping[str, SmoothedComponent]
    ranges: tuple[tuple[float, float], ...]  # of the coordinates that were observed


@dataclass(frozen=True)
class Smoothed(Artifact):
    """Gaussian processes that were fitted to observations without an equation."""

    @property
    def facts(self) -> SmoothedFacts:
        return read_json(self.path / FACTS, SmoothedFacts, "a description of processes", FACTS_LIMIT_BYTES)

    def check(self) -> None:
        _ = self.facts

    def describe(self) -> Mapping[str, object]:
        return {name: f"noise {one.noise:.4g}, lengths {one.lengths}" for name, one in self.facts.components.items()}
