"""Reads files as people keep them: text, Markdown, HTML, PDF and records, by suffix; long texts are divided."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stages.base import StageError
from stages.corpus.operations.html_extraction import ExtractHtml
from stages.corpus.operations.operation import Draft, Drop
from stages.corpus.readers.character_sets import UTF8, EncodingLabel, utf8_stream
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.division import Divide, divided
from stages.corpus.readers.file_systems import FilePart, FileReader, compressed, opened
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.pdf_files import pdf_text
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import FieldName, KeptFields, Label, labels_of_path
from stages.corpus.readers.text_files import whole
from stages.corpus.readers.web_pages import utf8_page

HTML, PDF = compressed(".html", ".htm", ".xhtml"), compressed(".pdf")
PIECE_BYTES = 1 << 20


class Documents(FileReader):
    """Files of all formats: HTML (.html .htm .xhtml), PDF, records (.jsonl .json .ndjson .parquet .csv .tsv), and text.

    A file with any other suffix is text if its content is. What is neither is a bad file, like an encrypted PDF, a page
    without a main text, an empty file, and a file that is longer than max_raw_bytes and is not divided.
    """

    kind: Literal["documents"] = "documents"
    divide: Divide = "blank_lines"  # of a text, HTML or PDF: where it is divided into documents
    document_bytes: PositiveInt = Field(4000, ge=64)  # of a document, about, where blank_lines or bytes divide
    divide_pattern: str = ""  # for regex: a document begins with each line in which it is found, such as ^CHAPTER
    encoding: EncodingLabel = UTF8  # of text and records; a byte order mark in a file has precedence
    text_field: str = "text"  # of records, which are documents as they are
    fields: Mapping[Label, FieldName] = {}
    keep: KeptFields = ()  # of records: fields that become columns of the corpus, as text
    max_pages: PositiveInt = 10_000  # of a PDF file
    cpu_s: PositiveInt = 120  # of CPU time for one PDF file or web page
    memory_bytes: PositiveInt = 1 << 31  # of the process that reads a PDF file

    @model_validator(mode="after")
    def _has_pattern(self) -> Self:
        if (self.divide == "regex") is not bool(self.divide_pattern):
            raise ValueError(
                "divide: regex and divide_pattern go together: set divide_pattern to the regular expression of the "
                "lines that begin a document"
            )
        try:
            re.compile(self.divide_pattern)
        except re.error as error:
            raise ValueError(f"divide_pattern is not a regular expression: {error}") from None
        return self

    def suffixes(self) -> tuple[str, ...]:
        return ("",)  # the content decides

    def split(self, part: Part, size: int) -> list[Part]:
        reader = self._record_reader(part)
        return reader.split(part, size) if reader else [part]

    def path_labels(self, part: FilePart) -> Mapping[str, str]:
        return labels_of_path(part, self.fields)

    def kept_columns(self) -> tuple[str, ...]:
        return self.keep

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        if reader := self._record_reader(part):
            yield from reader.read(part, max_bytes)
            return
        name = part.name.lower()
        if name.endswith(PDF):
            data = _whole(part, max_bytes)
            text = pdf_text(data, part.url, max_bytes, self.max_pages, self.cpu_s, self.memory_bytes)
            yield from self._divided(part, io.BytesIO(text), max_bytes)
        elif name.endswith(HTML):
            yield from self._divided(part, io.BytesIO(self._html_text(part, max_bytes)), max_bytes)
        else:
            with opened(part) as stream:
                size = _expect_text(part, utf8_stream(stream, self.encoding))
            if self.divide == "no" and size > max_bytes:
                raise _too_long(part, size, max_bytes)
            with opened(part) as stream:
                yield from self._divided(part, utf8_stream(stream, self.encoding), max_bytes)

    def _divided(
        self, part: FilePart, text: io.BufferedIOBase | io.BufferedReader[Any], max_bytes: int
    ) -> Iterator[Candidate]:
        size = min(self.document_bytes, max_bytes)
        for position, document in divided(text, self.divide, size, self.divide_pattern, max_bytes):
            yield Candidate(document, part.name, position)

    def _html_text(self, part: FilePart, max_bytes: int) -> bytes:
        page = utf8_page(_whole(part, max_bytes)).decode("utf-8", "replace")
        extract = ExtractHtml(favour="recall", max_bytes=max(max_bytes, ExtractHtml().max_bytes), cpu_s=self.cpu_s)
        found = extract.function()(Draft(page, part.name))
        if isinstance(found, Drop):
            reason = found.rule.replace("_", " ") + (f" ({found.value})" if isinstance(found.value, str) else "")
            raise StageError(f"{part.url} cannot be read as HTML: {reason}")
        return found.text.encode("utf-8", "replace")

    def _record_reader(self, part: Part) -> FileReader | None:
        """The reader of a file of records; None for a text."""
        name = part.name.lower()
        return next((reader for reader in self._record_readers if name.endswith(reader.suffixes())), None)

    @cached_property
    def _record_readers(self) -> tuple[FileReader, ...]:
        same = {name: getattr(self, name) for name in ("paths", "bad_files", "text_field", "fields", "keep")}
        encoded = {**same, "encoding": self.encoding}
        return JsonLines.model_validate(encoded), Parquet.model_validate(same), Csv.model_validate(encoded)


def _whole(part: FilePart, max_bytes: int) -> bytes:
    """The content of a file. Raises StageError if it is empty or too long."""
    with opened(part) as stream:
        data, size = whole(stream, max_bytes)
    if data is None:
        raise _too_long(part, size, max_bytes)
    if not data:
        raise _empty(part)
    return data


def _expect_text(part: FilePart, stream: io.BufferedReader[Any]) -> int:
    """Read a file to its end and return its size. Raises StageError if it is empty or not text in UTF-8."""
    decoder, size, blank = codecs.getincrementaldecoder(UTF8)(), 0, True
    while True:
        piece = stream.read(PIECE_BYTES)
        if (place := piece.find(b"\0")) >= 0:
            raise StageError(f"{part.url} is not text: it has a byte 0 at {size + place}")
        try:
            decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise StageError(
                f"{part.url} is not UTF-8 near byte {size + error.start}: set reader.encoding, to windows-1252 for "
                "example, if it is text"
            ) from None
        if not piece:
            break
        size, blank = size + len(piece), blank and piece.isspace()
    if blank:
        raise _empty(part)
    return size


def _empty(part: FilePart) -> StageError:
    return StageError(f"{part.url} is empty")


def _too_long(part: FilePart, size: int, max_bytes: int) -> StageError:
    return StageError(f"{part.url} has {size:,} bytes, more than max_raw_bytes ({max_bytes:,})")
