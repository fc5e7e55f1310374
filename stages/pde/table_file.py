"""Reads measurements from CSV, Parquet, NetCDF and npz: columns by name, checked, with missing and censored values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from stages.base import Config, External, StageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ENDINGS = (".csv", ".parquet", ".nc", ".npz")
FILE_LIMIT_BYTES = 1 << 30
ROW_LIMIT = 1_000_000


class Column(Config):
    """Where the values of a coordinate or a component are, and which of them are possible."""

    column: str | None = None  # its name in the file; null: the name of the coordinate or component
    scale: float = 1.0  # values of the file times this are in the units of the equation
    minimum: float | None = None  # in the units of the equation; a value outside is refused
    maximum: float | None = None
    censored_below: float | None = None  # detection limit of a component: values at or below it are "at most this"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"scale: expected a finite number other than 0, got {self.scale}")
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            raise ValueError(f"minimum {self.minimum} is not below maximum {self.maximum}")
        return self


class TableFile(External):
    """A file of measurements: .csv, .parquet, .nc (NetCDF) or .npz. In YAML, its path."""

    path: Path

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.path.suffix not in ENDINGS:
            raise ValueError(f"{self.path} has the ending {self.path.suffix!r}; expected one of {', '.join(ENDINGS)}")
        return self

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        if not self.path.is_file():
            raise StageError(f"{self.path} is not a file: give the path of a table ({', '.join(ENDINGS)})")
        return digest_file(self.path)

    def read(self) -> dict[str, NDArray[Any]]:
        """Every column by name, all of one length. Raises StageError."""
        import numpy as np

        try:
            if self.path.stat().st_size > FILE_LIMIT_BYTES:
                raise StageError(f"{self.path} is larger than {FILE_LIMIT_BYTES} bytes")
            found = READERS[self.path.suffix](self.path)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(f"{self.path} cannot be read as {self.path.suffix}: {error}") from None
        lengths = {name: len(column) for name, column in found.items()}
        if len(set(lengths.values())) != 1:
            raise StageError(f"{self.path}: its columns have different lengths: {lengths}")
        if not 0 < next(iter(lengths.values())) <= ROW_LIMIT:
            raise StageError(f"{self.path} has {next(iter(lengths.values()))} rows; expected 1 to {ROW_LIMIT}")
        return {name: np.asarray(column) for name, column in found.items()}


def numbers(file: Path, columns: Mapping[str, NDArray[Any]], name: str, spec: Column, missing: bool) -> Array:
    """A column as numbers in the units of the equation. `missing`: NaN is allowed. Raises StageError."""
    import numpy as np

    key = spec.column or name
    if key not in columns:
        raise StageError(
            f"{file} has no column {key!r} for {name}; it has {', '.join(columns)}. Name it: columns.{name}=COLUMN"
        )
    try:
        values = columns[key].astype(np.float64)
    except (ValueError, TypeError):
        raise StageError(f"{file}: column {key!r} is not numeric") from None
    with np.errstate(over="ignore"):
        values = values * spec.scale
    wrong = np.isinf(values) | (np.isnan(values) & (not missing))
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    outside = (values < low) | (values > high)
    for bad, what in ((wrong, "finite"), (outside, f"{low:g} to {high:g}")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise StageError(
                f"{file}, row {row + 1}, column {key!r}: {name} is {values[row]:g}; expected {what}. "
                f"{int(bad.sum())} rows are like this."
            )
    return np.asarray(values, np.float64)


def _csv(path: Path) -> dict[str, Any]:
    from pyarrow import csv

    table = csv.read_csv(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def _parquet(path: Path) -> dict[str, Any]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _npz(path: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].ravel() for name in file.files}


def _netcdf(path: Path) -> dict[str, Any]:
    """Variables on the same dimensions as the largest one; each dimension's own variable is repeated over the
    others."""
    with path.open("rb") as start:
        classic = start.read(3) == b"CDF"
    variables: dict[str, tuple[Sequence[str], Any]] = {}
    if classic:
        from scipy.io import netcdf_file

        with netcdf_file(path, mmap=False) as file:
            variables = {name: (one.dimensions, one[:].copy()) for name, one in file.variables.items()}
    else:
        import h5netcdf

        with h5netcdf.File(path, "r") as file:
            variables = {name: (one.dimensions, one[...]) for name, one in file.variables.items()}
    return _flattened(variables)


def _flattened(variables: Mapping[str, tuple[Sequence[str], Any]]) -> dict[str, Any]:
    import numpy as np

    dimensions, largest = max(variables.values(), key=lambda one: np.size(one[1]))
    found = {}
    for name, (own, values) in variables.items():
        if set(own) <= set(dimensions):
            shaped = np.asarray(values)
            order = np.argsort([dimensions.index(one) for one in own]).tolist()
            shaped = shaped.transpose(order).reshape(
                [np.shape(largest)[place] if one in own else 1 for place, one in enumerate(dimensions)]
            )
            found[name] = np.broadcast_to(shaped, np.shape(largest)).ravel()
    return found


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".csv": _csv, ".parquet": _parquet, ".npz": _npz, ".nc": _netcdf,
}  # fmt: skip
