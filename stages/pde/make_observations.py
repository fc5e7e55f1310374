"""Observations from a file, or simulated by a solver with known parameters and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from stages.base import Context, Stage, StageError
from stages.pde.observations import ObservationFacts, Observations, Table, write
from stages.pde.simulation import Simulation
from stages.pde.table_file import Column, TableFile, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MakeObservations(Stage):
    """Reads or simulates noisy values of the components of an equation. `path` replaces the simulation."""

    spawns: ClassVar[bool] = False

    path: TableFile | None = None
    coordinates: tuple[str, ...] = ("t", "x")  # of the file
    components: tuple[str, ...] = ("u",)  # of the file; one that it lacks is hidden
    columns: Mapping[str, Column] = {}  # by coordinate or component, where the file has other names, units or limits
    where: Mapping[str, str | int | float] = {}  # rows to keep: column and value
    replicate: str | None = None  # the column that numbers replicates
    held_out: tuple[str | int, ...] = ()  # replicates that are kept for the evaluation
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.path is None and self.simulation is None:
            raise ValueError("expected `path` (a file) or `simulation`")
        unknown = [name for name in self.columns if name not in (*self.coordinates, *self.components)]
        if unknown:
            expected = ", ".join((*self.coordinates, *self.components))
            raise ValueError(f"columns: {unknown[0]!r} is not a coordinate or a component; expected {expected}")
        if self.held_out and self.replicate is None:
            raise ValueError("held_out: expected `replicate`, the column that numbers replicates")
        return self

    def run(self, ctx: Context) -> Observations:
        facts, table = self._read(self.path) if self.path is not None else self._simulate()
        for note in facts.notes:
            ctx.note(note)
        ctx.metrics({
            "observations": int((~_isnan(table.values)).sum()), "missing": int(_isnan(table.values).sum()),
            "censored": int(table.censored.sum()), "held_out": int(table.held_out.sum()),
        })  # fmt: skip
        return write(ctx.out, facts, table)

    def _read(self, file: TableFile) -> tuple[ObservationFacts, Table]:
        import numpy as np

        columns = self._selected(file)
        notes = []
        points = np.stack(
            [numbers(file.path, columns, name, self._column(name), False) for name in self.coordinates], axis=1
        )
        hidden = [name for name in self.components if (self._column(name).column or name) not in columns]
        if len(hidden) == len(self.components):
            numbers(file.path, columns, hidden[0], self._column(hidden[0]), True)  # raises
        values = np.full((len(points), len(self.components)), np.nan)
        censored = np.zeros(values.shape, bool)
        for place, name in enumerate(self.components):
            if name in hidden:
                notes.append(f"{file.path.name} has no column for {name}: it is a hidden component")
                continue
            values[:, place] = numbers(file.path, columns, name, self._column(name), True)
            limit = self._column(name).censored_below
            if limit is not None:
                censored[:, place] = values[:, place] <= limit
                values[censored[:, place], place] = limit
        held_out, replicates = np.zeros(len(points), bool), 1
        if self.replicate is not None:
            names = _texts(columns, self.replicate, file)
            replicates = len(set(names))
            absent = [str(one) for one in self.held_out if str(one) not in names]
            if absent:
                raise StageError(f"{file.path} has no replicate {absent[0]!r}; it has {', '.join(sorted(set(names)))}")
            held_out = np.array([name in {str(one) for one in self.held_out} for name in names])
            if held_out.all():
                raise StageError("held_out: expected at least one replicate that is not held out")
        facts = ObservationFacts(
            coordinates=self.coordinates,
            components=self.components,
            origin=file.path.name,
            replicates=replicates,
            notes=tuple(notes),
        )
        return facts, Table(points, values, np.full(values.shape, np.nan), censored, held_out)

    def _column(self, name: str) -> Column:
        return self.columns.get(name, Column())

    def _selected(self, file: TableFile) -> dict[str, NDArray[Any]]:
        import numpy as np

        columns = file.read()
        keep = np.ones(len(next(iter(columns.values()))), bool)
        for name, value in self.where.items():
            keep &= np.array([one == _text(value) for one in _texts(columns, name, file)])
        if not keep.any():
            raise StageError(f"{file.path}: no row has {', '.join(f'{k} = {v}' for k, v in self.where.items())}")
        return {name: column[keep] for name, column in columns.items()}

    def _simulate(self) -> tuple[ObservationFacts, Table]:
        import numpy as np

        from stages.pde.simulate import simulated

        assert self.simulation is not None
        given = self.simulation
        points, truth = simulated(given)
        generator = np.random.default_rng([given.seed, 13])
        points, truth = np.tile(points, (given.replicates, 1)), np.tile(truth, (given.replicates, 1))
        spread = given.noise * (np.abs(truth) if given.relative_noise else 1.0)
        values = truth + spread * generator.standard_normal(truth.shape)
        censored = np.zeros(values.shape, bool)
        for place, name in enumerate(given.equation.components):
            if name in given.censored_below:
                censored[:, place] = values[:, place] <= given.censored_below[name]
                values[censored[:, place], place] = given.censored_below[name]
            if name in given.hidden:
                values[:, place], censored[:, place] = np.nan, False
        if given.missing_share:
            missing = generator.random(values.shape) < given.missing_share
            values[missing], censored[missing] = np.nan, False
        noise = {} if given.relative_noise else dict.fromkeys(given.equation.components, given.noise)
        facts = ObservationFacts(
            coordinates=given.equation.coordinates,
            components=given.equation.components,
            origin="simulation",
            parameters=given.parameters,
            noise=noise,
            replicates=given.replicates,
        )
        return facts, Table(points, values, truth, censored, np.zeros(len(points), bool))


def _isnan(values: Any) -> Any:
    import numpy as np

    return np.isnan(values)


def _texts(columns: Mapping[str, Any], name: str, file: TableFile) -> list[str]:
    if name not in columns:
        raise StageError(f"{file.path} has no column {name!r}; it has {', '.join(columns)}")
    return [_text(one) for one in columns[name].tolist()]


def _text(value: object) -> str:
    """1 and 1.0 are the same."""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
