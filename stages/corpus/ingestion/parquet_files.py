"""Columns gather_rows row by row and written in batches: what the shards' files have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 8 << 20  # of text
ROW_GROUP_ROWS = 1 << 16
BATCH_ROWS = 1 << 12


def use_flat_memory() -> None:
    """Make Arrow use the system allocator and one thread.

    Arrow's own allocator keeps more memory with every shard, the system's with every thread. There is one worker per
    processor, so a worker needs no threads.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def schema(columns: Mapping[str, str]) -> pa.Schema:
    """An Arrow schema of column names and the names of their types."""
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, BATCH_ROWS in memory at a time."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


class TableWriter:
    """Writes a Parquet file whose bytes depend on its rows only. A context manager."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self._path, self._schema = path, schema(columns)
        self._columns: dict[str, list[Any]] = {name: [] for name in columns}
        self._rows = self._bytes = 0
        self._writer: Any = None

    def add(self, row: Mapping[str, Any], size: int = 0) -> None:
        """Add a row with a value for every column. `size`: an estimate of its bytes, where rows are large."""
        for name, column in self._columns.items():
            column.append(row[name])
        self._rows += 1
        self._bytes += size
        if self._bytes >= ROW_GROUP_BYTES or self._rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._rows or self._writer is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        if self._writer is None:
            self._writer = ParquetWriter(self._path, self._schema, compression="zstd", write_statistics=False)
        self._writer.write_table(pa.table(self._columns, schema=self._schema), row_group_size=max(self._rows, 1))
        for column in self._columns.values():
            column.clear()
        self._rows = self._bytes = 0
