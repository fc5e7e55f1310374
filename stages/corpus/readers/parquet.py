"""Reads Parquet: one document per row. A large file is read in ranges of row groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from stages.base import StageError
from stages.corpus.readers.file_systems import FileChangedError, FilePart, raw, read_errors
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import BATCH_ROWS, RecordReader
from stages.corpus.readers.remote_files import is_url

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile


class Parquet(RecordReader):
    """Rows, with the text in the column `text_field`. A row without text is dropped and counted."""

    kind: Literal["parquet"] = "parquet"

    def suffixes(self) -> tuple[str, ...]:
        return (".parquet",)

    def split(self, part: Part, size: int) -> list[Part]:
        assert isinstance(part, FilePart)
        if part.size <= size or part.error:
            return [part]
        try:
            with _table(part) as table:
                groups = table.metadata.num_row_groups
        except FileChangedError:
            raise
        except StageError:
            if self.bad_files == "fail":
                raise
            return [part]
        count = min(groups, round(part.size / size))
        bounds = [groups * index // count for index in range(count + 1)] if count else [0, 0]
        ranges = itertools.pairwise(bounds)
        return [replace(part, size=part.size // count, start=start, stop=stop) for start, stop in ranges]

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        with _table(part) as table:
            columns = self.check_columns(part, *columns_of(table.schema_arrow))
            groups = range(table.metadata.num_row_groups)[part.start : part.stop]
            first = position = sum(table.metadata.row_group(index).num_rows for index in range(part.start))
            rows = max(sum(table.metadata.row_group(index).num_rows for index in groups), 1)
            with tracking_position(lambda: part.size * (position - first) / rows):
                wanted = [self.text_field, *columns]
                for batch in table.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=wanted):
                    for record in records_of(batch, self.text_field):
                        yield self.candidate(part, position, record, 0, max_bytes)
                        position += 1


def columns_of(fields: Iterable[pa.Field], within: str = "") -> tuple[dict[str, str], list[str]]:
    """The columns of a schema and the fields in them ("meta.text"): name -> type, and those that can hold texts."""
    import pyarrow.types as types

    strings = (types.is_string, types.is_large_string, types.is_string_view)
    binaries = (types.is_binary, types.is_large_binary, types.is_binary_view)
    columns: dict[str, str] = {}
    texts = []
    for field in fields:
        name = within + field.name
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        columns[name] = str(kind)
        if any(check(kind) for check in (*strings, *binaries)):
            texts.append(name)
        if types.is_struct(kind):
            more, more_texts = columns_of(list(kind), f"{name}.")
            columns |= more
            texts += more_texts
    return columns, texts


def records_of(batch: pa.RecordBatch, text_field: str) -> Iterator[dict[str, Any]]:
    """The rows of a batch, each with its text as bytes in `text_field`: a text that is not UTF-8 is one bad row."""
    import pyarrow.compute as pc

    column, *within = [text_field] if text_field in batch.schema.names else text_field.split(".")
    texts = pc.struct_field(batch[column], within) if within else batch[column]
    others = batch.drop_columns([column]) if not within else batch
    for text, record in zip(texts, others.to_pylist() or [{}] * len(texts), strict=True):
        value = text.value if hasattr(text, "dictionary") else text  # a dictionary holds equal texts once
        buffer = value.as_buffer() if value is not None and value.is_valid else None
        yield {**record, text_field: None if buffer is None else buffer.to_pybytes()}


@contextmanager
def _table(part: FilePart) -> Iterator[ParquetFile]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with read_errors(part), raw(part) as file:
        try:
            with ParquetFile(file if is_url(part.url) else part.url) as table:  # Arrow reads local files faster by path
                yield table
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise StageError(f"{part.url} is not a readable Parquet file: {error}") from None
