"""Reads CSV and TSV files with a header: one document per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.base import StageError
from stages.corpus.readers.file_systems import FilePart, compressed, opened
from stages.corpus.readers.reader import Candidate
from stages.corpus.readers.records import RecordReader

Quoting = Literal["standard", "none"]  # none: quotation marks are part of the text
LINE_LIMIT = 16  # times the longest text: a line has other columns and quotes


class Csv(RecordReader):
    """Rows after a header that names the columns. The text is in the column `text_field`."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(default="", max_length=1)  # empty: a tab in .tsv files, a comma in others
    quoting: Quoting = "standard"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".csv", ".tsv")

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        csv.field_size_limit(max_bytes * 4)  # of the whole process; a longer field is an unclosed quote
        delimiter = self.delimiter or ("\t" if ".tsv" in part.name.lower() else ",")
        with opened(part) as stream:
            # Bytes that are not UTF-8 survive as surrogates, for the text rules to find.
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            lines: list[str] = []  # of the current row
            quoting: Literal[0, 3] = csv.QUOTE_NONE if self.quoting == "none" else csv.QUOTE_MINIMAL
            rows = csv.DictReader(_lines(text, lines, max_bytes * LINE_LIMIT), delimiter=delimiter, quoting=quoting)
            last: list[str] = []
            try:
                names = rows.fieldnames or ()
                self.check_columns(part, dict.fromkeys(names, "text"), names)
                lines.clear()
                for position, row in enumerate(rows):
                    last = lines.copy()
                    lines.clear()
                    yield self._row(part, position, row, max_bytes)
                if self.quoting == "standard" and _ends_within_quotes(last, delimiter):
                    raise csv.Error("the file ends within quotes")
            except csv.Error as error:
                raise StageError(f"{part.url} is not a readable CSV file: line {rows.line_num}: {error}") from None

    def _row(self, part: FilePart, position: int, row: dict[str, str], max_bytes: int) -> Candidate:
        size = sum(len(value) for value in row.values() if isinstance(value, str))
        return self.candidate(part, position, row, size, max_bytes)


def _ends_within_quotes(row: list[str], delimiter: str) -> bool:
    """Whether a quote is left open. `csv` reports this in strict mode only, which refuses other things as well."""
    try:
        list(csv.reader(row, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _lines(text: io.TextIOWrapper, seen: list[str], limit: int) -> Iterator[str]:
    """The lines of a file, appended to `seen`. Raises csv.Error for a line of more than `limit` characters."""
    while line := text.readline(limit):
        if len(line) == limit and not line.endswith(("\n", "\r")):
            raise csv.Error(f"more than {limit} characters without a line end")
        seen.append(line)
        yield line
