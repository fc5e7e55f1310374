"""Reads Parquet: one document per row. A large file is read in ranges of row groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from stages.base import StageError
from stages.corpus.readers.file_systems import FilePart, raw, read_errors
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import BATCH_ROWS, RecordReader

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

TEXT_KINDS = ("string", "large_string")


class Parquet(RecordReader):
    """Rows, with the text in the column `text_field`. A row without text is dropped and counted."""

    kind: Literal["parquet"] = "parquet"

    def suffixes(self) -> tuple[str, ...]:
        return (".parquet",)

    def split(self, part: Part, size: int) -> list[Part]:
        assert isinstance(part, FilePart)
        if part.size <= size:
            return [part]
        with _table(part) as table:
            groups = table.metadata.num_row_groups
        count = min(groups, round(part.size / size))
        bounds = [groups * index // count for index in range(count + 1)] if count else [0, 0]
        ranges = itertools.pairwise(bounds)
        return [replace(part, size=part.size // count, start=start, stop=stop) for start, stop in ranges]

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        with _table(part) as table:
            kinds = {field.name: str(field.type) for field in table.schema_arrow}
            columns = self.check_columns(part, kinds, TEXT_KINDS)
            groups = range(table.metadata.num_row_groups)[part.start : part.stop]
            first = position = sum(table.metadata.row_group(index).num_rows for index in range(part.start))
            rows = max(sum(table.metadata.row_group(index).num_rows for index in groups), 1)
            with tracking_position(lambda: part.size * (position - first) / rows):
                for batch in table.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns):
                    for record in batch.to_pylist():
                        yield self.candidate(part, position, record, 0, max_bytes)
                        position += 1


@contextmanager
def _table(part: FilePart) -> Iterator[ParquetFile]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with read_errors(part), raw(part) as file:
        try:
            with ParquetFile(
                file if "://" in part.url else part.url
            ) as table:  # Arrow reads local files faster by path
                yield table
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise StageError(f"{part.url} is not a readable Parquet file: {error}") from None
