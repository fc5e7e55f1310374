"""Reads CSV and TSV with a header: one document a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.base import StageError
from stages.corpus.readers.base import Candidate
from stages.corpus.readers.places import FilePart, compressed, opened
from stages.corpus.readers.records import RecordReader


class Csv(RecordReader):
    """Rows after a header that names the columns, the text in the one that `text_field` names."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(default="", max_length=1)  # empty: a tab in .tsv files, a comma in others

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".csv", ".tsv")

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        csv.field_size_limit(max_bytes * 4)  # of the whole process; past it a quote was never closed
        delimiter = self.delimiter or ("\t" if ".tsv" in part.name else ",")
        with opened(part) as stream:
            # What is not UTF-8 comes back as the bytes that it was, for the first filter to find.
            text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[arg-type]
            rows = csv.DictReader(text, delimiter=delimiter)
            try:
                self.check_columns(part, dict.fromkeys(rows.fieldnames or (), "text"), ("text",))
                for place, row in enumerate(rows):
                    yield self._row(part, place, row, max_bytes)
            except csv.Error as error:
                raise StageError(f"{part.url}, line {rows.line_num}: {error}: is it a CSV file?") from None

    def _row(self, part: FilePart, place: int, row: dict[str, str], max_bytes: int) -> Candidate:
        size = sum(len(value) for value in row.values() if isinstance(value, str))
        return self.candidate(part, place, row, size, max_bytes)
