"""Reads CSV and TSV files with a header: one document per row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.character_sets import UTF8, EncodingLabel, utf8_stream
from stages.corpus.readers.file_systems import FilePart, compressed, opened
from stages.corpus.readers.reader import Candidate
from stages.corpus.readers.records import NOT_A_RECORD, RecordReader, refused

Quoting = Literal["standard", "none"]  # none: quotation marks are part of the text
LINE_LIMIT = 16  # times the longest text: a line has other columns and quotes


class Csv(RecordReader):
    """Rows after a header that names the columns. The text is in the column `text_field`.

    A row with more or fewer cells than the header is dropped and counted: its text may continue in another cell.
    """

    kind: Literal["csv"] = "csv"
    encoding: EncodingLabel = UTF8  # a byte order mark in a file has precedence
    delimiter: str = Field(default="", max_length=1)  # empty: a tab in .tsv files, a comma in others
    quoting: Quoting = "standard"

    def suffixes(self) -> tuple[str, ...]:
        return compressed(".csv", ".tsv")

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        csv.field_size_limit(max_bytes * 4)  # of the whole process; a longer field is an unclosed quote
        delimiter = self.delimiter or ("\t" if ".tsv" in part.name.lower() else ",")
        with opened(part) as stream:
            # Bytes that are not UTF-8 survive as surrogates, for the text rules to find.
            utf8 = utf8_stream(stream, self.encoding)
            text = io.TextIOWrapper(utf8, encoding="utf-8-sig", errors="surrogateescape", newline="")
            lines: list[str] = []  # of the current row
            quoting: Literal[0, 3] = csv.QUOTE_NONE if self.quoting == "none" else csv.QUOTE_MINIMAL
            rows = csv.reader(_lines(text, lines, max_bytes * LINE_LIMIT), delimiter=delimiter, quoting=quoting)
            last: list[str] = []
            try:
                header = next(rows, [])
                self.check_columns(part, dict.fromkeys(header, "text"), header)
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise StageError(f"{part.url} has two columns {twice[0]!r}: rename one of them")
                lines.clear()
                for position, row in enumerate(filter(None, rows)):  # empty lines are skipped
                    last = lines.copy()
                    lines.clear()
                    yield self._row(part, position, header, row, max_bytes)
                if self.quoting == "standard" and _ends_within_quotes(last, delimiter):
                    raise csv.Error("the file ends within quotes")
            except csv.Error as error:
                raise StageError(f"{part.url} is not a readable CSV file: line {rows.line_num}: {error}") from None

    def _row(self, part: FilePart, position: int, header: list[str], row: list[str], max_bytes: int) -> Candidate:
        size = sum(len(cell.encode("utf-8", "surrogatepass")) for cell in row)
        if len(row) != len(header):
            return refused(part, position, Drop(NOT_A_RECORD, f"{len(row)} cells", f"{len(header)} columns"), size)
        return self.candidate(part, position, dict(zip(header, row, strict=True)), size, max_bytes)


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
