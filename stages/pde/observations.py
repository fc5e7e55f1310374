"""The artifact of observations: points of space-time, and what was measured there.

observations.safetensors   `points` [n, coordinates], `values` and `truth` [n, components] (NaN: missing, not known),
                           `censored` [n, components] and `held_out` [n] as 0 and 1
facts.json                 names, the parameters that data were simulated with, and what was noticed while reading
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from stages.base import Artifact, ArtifactError, Config
from stages.json_files import read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TABLE, FACTS = "observations.safetensors", "facts.json"
FACTS_LIMIT_BYTES = 1 << 20


class ObservationFacts(Config):
    """What is known of observations apart from their values."""

    coordinates: tuple[str, ...]
    components: tuple[str, ...]
    origin: str  # the name of a file, or "simulation"
    parameters: Mapping[str, float] = {}  # that data were simulated with
    noise: Mapping[str, float] = {}  # its standard deviation by component, where it is known
    replicates: NonNegativeInt = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Observations in memory; the shapes are those of the file."""

    points: Array
    values: Array
    truth: Array
    censored: NDArray[np.bool_]
    held_out: NDArray[np.bool_]

    def kept(self, rows: NDArray[np.bool_]) -> Table:
        return Table(self.points[rows], self.values[rows], self.truth[rows], self.censored[rows], self.held_out[rows])

    @property
    def training(self) -> Table:
        return self.kept(~self.held_out)


@dataclass(frozen=True)
class Observations(Artifact):
    """Noisy values of the components of an equation at points of space-time, on a grid or not."""

    is_dataset = True

    @cached_property
    def facts(self) -> ObservationFacts:
        return read_json(self.path / FACTS, ObservationFacts, "a description of observations", FACTS_LIMIT_BYTES)

    def table(self) -> Table:
        import numpy as np

        facts, found = self.facts, read_tensors(self.path / TABLE)
        n = len(found["points"]) if "points" in found else 0
        shape = n, len(facts.components)
        expected = {
            "points": (n, len(facts.coordinates)), "values": shape, "truth": shape, "censored": shape, "held_out": (n,),
        }  # fmt: skip
        if not n or {name: value.shape for name, value in found.items()} != expected:
            raise ArtifactError(f"{self.path / TABLE}: its tensors are not those that {FACTS} promises")
        if not np.isfinite(found["points"]).all() or np.isinf(found["values"]).any():
            raise ArtifactError(f"{self.path / TABLE} has a value that is not finite")
        return Table(found["points"], found["values"], found["truth"], found["censored"] > 0.5, found["held_out"] > 0.5)

    def check(self) -> None:
        self.table()

    def describe(self) -> Mapping[str, object]:
        facts, table = self.facts, self.table()
        return {
            "origin": facts.origin,
            "components": list(facts.components),
            "points": len(table.points),
            "held out": int(table.held_out.sum()),
            "simulated with": dict(facts.parameters),
        }


def write(path: Path, facts: ObservationFacts, table: Table) -> Observations:
    """Write observations into the directory `path`."""
    write_tensors(
        path / TABLE,
        {
            "points": table.points,
            "values": table.values,
            "truth": table.truth,
            "censored": table.censored,
            "held_out": table.held_out,
        },
    )
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return Observations(path)


def write_tensors(path: Path, tensors: Mapping[str, Array | NDArray[np.bool_]]) -> None:
    """Write arrays in float64."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value, np.float64) for name, value in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Array]:
    """The arrays of a file. Raises ArtifactError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: dict[str, Array] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    return found
