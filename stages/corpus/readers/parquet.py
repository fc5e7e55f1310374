"""Reads Parquet: one document per row. A large file is read in ranges of row groups.

A file of 500 bytes can decode to gigabytes: a page may be compressed a thousandfold, and a dictionary holds a value
once that all rows repeat. So the sizes of pages are read first, and they decide how many rows are decoded together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from stages.base import StageError
from stages.corpus.readers.decoded_size import BATCH_BYTES, MAX_DECODED_BYTES, check_decoded, decoded_error
from stages.corpus.readers.file_systems import FileChangedError, FilePart, raw, read_errors
from stages.corpus.readers.parquet_pages import pages_of
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import BATCH_ROWS, RecordReader
from stages.corpus.readers.remote_files import is_url

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile


BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")  # the physical types whose values can be long
LIST_VALUE_BYTES = 64  # of memory for a value of a list, as a Python object


class Parquet(RecordReader):
    """Rows, with the text in the column `text_field`. A row without text is dropped and counted."""

    kind: Literal["parquet"] = "parquet"
    max_decoded_bytes: PositiveInt = MAX_DECODED_BYTES  # of the pages that are in memory together, decompressed

    def suffixes(self) -> tuple[str, ...]:
        return (".parquet",)

    def split(self, part: Part, size: int) -> list[Part]:
        assert isinstance(part, FilePart)
        if part.size <= size or part.error:
            return [part]
        try:
            with _table(part) as (table, _):
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
        with _table(part) as (table, stored):
            columns = self.check_columns(part, *columns_of(table.schema_arrow))
            groups = range(table.metadata.num_row_groups)[part.start : part.stop]
            first = position = sum(table.metadata.row_group(index).num_rows for index in range(part.start))
            rows = max(sum(table.metadata.row_group(index).num_rows for index in groups), 1)
            with tracking_position(lambda: part.size * (position - first) / rows):
                wanted = [self.text_field, *columns]
                for group in groups:
                    together = self._rows_together(part, table.metadata, stored, group, wanted)
                    for batch in table.iter_batches(together, row_groups=[group], columns=wanted):
                        check_decoded(batch, self.max_decoded_bytes, part, f"row group {group}")
                        for record in records_of(batch, self.text_field):
                            yield self.candidate(part, position, record, 0, max_bytes)
                            position += 1

    def _rows_together(self, part: FilePart, metadata: Any, stored: IO[bytes], group: int, wanted: list[str]) -> int:
        """How many rows of a row group can be decoded together: no value is longer than its page.

        Raises StageError if the pages are larger than `max_decoded_bytes`.
        """
        in_memory = widest = 0
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            path = column.path_in_schema
            if not any(path == name or path.startswith(f"{name}.") for name in wanted):
                continue
            declared = metadata.schema.column(index)
            largest = {True: 0, False: 0}  # of dictionaries, of other pages
            try:
                for page in pages_of(stored, column):
                    size = page.size
                    if declared.max_repetition_level and not page.is_dictionary:
                        size = max(size, page.values * LIST_VALUE_BYTES)
                    largest[page.is_dictionary] = max(largest[page.is_dictionary], size)
                    if in_memory + sum(largest.values()) > self.max_decoded_bytes:
                        raise decoded_error(part, f"row group {group}, column {path}", self.max_decoded_bytes)
            except ValueError as error:
                raise _unreadable(part, f"row group {group}, column {path}: {error}") from None
            in_memory += sum(largest.values())
            if declared.physical_type in BYTES and not declared.max_repetition_level:
                widest += max(largest.values())
        return max(1, min(BATCH_ROWS, BATCH_BYTES // max(widest, 1)))


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
def _table(part: FilePart) -> Iterator[tuple[ParquetFile, IO[bytes]]]:
    """The file for Arrow, and the same as it is stored."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with read_errors(part), raw(part) as file:
        try:
            source = file if is_url(part.url) else part.url  # Arrow reads local files faster by path
            with ParquetFile(source) as table:
                lists = _lists_of_bytes(table.metadata)
                if lists:  # as dictionaries, whose values are counted before they are repeated
                    with ParquetFile(source, metadata=table.metadata, read_dictionary=lists) as with_dictionaries:
                        yield with_dictionaries, file if is_url(part.url) else file.raw
                else:
                    yield table, file if is_url(part.url) else file.raw
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(part, str(error)) from None


def _lists_of_bytes(metadata: Any) -> list[str]:
    columns = map(metadata.schema.column, range(metadata.num_columns))
    return [each.path for each in columns if each.max_repetition_level and each.physical_type == "BYTE_ARRAY"]


def _unreadable(part: FilePart, why: str) -> StageError:
    return StageError(f"{part.url} is not a readable Parquet file: {why}")
