"""Writes a split's documents as Parquet shards whose bytes depend on the documents alone."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.corpus import COLUMNS, Document, Split, SplitFacts, Tally, shard_name

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

SHARD_BYTES = 256 << 20  # of text
ROW_GROUP_BYTES = 8 << 20


class ShardWriter:
    """The shards of one split. `add` in the order of ids, then `close`."""

    def __init__(self, folder: Path, split: Split) -> None:
        self._folder, self._split = folder, split
        self._size = Tally()
        self._shards: list[int] = []
        self._shard_bytes = self._pending_bytes = 0
        self._pending: list[Document] = []
        self._writer: ParquetWriter | None = None

    def add(self, document: Document, size_bytes: int) -> None:
        self._pending.append(document)
        self._pending_bytes += size_bytes
        self._shard_bytes += size_bytes
        self._size += Tally(documents=1, bytes=size_bytes)
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._write()
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def close(self) -> SplitFacts:
        self._end_shard()
        return SplitFacts(size=self._size, shards=tuple(self._shards))

    def _write(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        if self._writer is None:
            path = self._folder / shard_name(self._split, len(self._shards))
            path.parent.mkdir(exist_ok=True)
            self._writer = ParquetWriter(path, schema, compression="zstd")
            self._shards.append(0)
        columns = [pa.array(column, pa.string()) for column in zip(*map(astuple, self._pending), strict=True)]
        self._writer.write_table(pa.table(columns, schema=schema), row_group_size=len(self._pending))
        self._shards[-1] += len(self._pending)
        self._pending.clear()
        self._pending_bytes = 0

    def _end_shard(self) -> None:
        if self._pending:
            self._write()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._shard_bytes = 0
