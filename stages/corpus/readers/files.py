"""Reads files of several formats, by suffix: text, JSON Lines, Parquet, CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from stages.corpus.readers.character_sets import UTF8, EncodingLabel
from stages.corpus.readers.csv_files import Csv
from stages.corpus.readers.file_systems import FileReader
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import FieldName, Label
from stages.corpus.readers.text_files import Text


class Files(FileReader):
    """Files of .txt .md .rst (one document per file), .jsonl .parquet .csv .tsv (one document per record)."""

    kind: Literal["files"] = "files"
    encoding: EncodingLabel = UTF8  # of text, JSON Lines and CSV; a byte order mark in a file has precedence
    text_field: str = "text"  # of records
    fields: Mapping[Label, FieldName] = {}

    def suffixes(self) -> tuple[str, ...]:
        return tuple(suffix for reader in self._readers() for suffix in reader.suffixes())

    def split(self, part: Part, size: int) -> list[Part]:
        return self._reader(part).split(part, size)

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        return self._reader(part).read(part, max_bytes)

    def _reader(self, part: Part) -> FileReader:
        return next(reader for reader in self._readers() if part.name.endswith(reader.suffixes()))

    def _readers(self) -> tuple[FileReader, ...]:
        records = {"paths": self.paths, "text_field": self.text_field, "fields": self.fields}
        return (
            Text(paths=self.paths, encoding=self.encoding),
            JsonLines.model_validate({**records, "encoding": self.encoding}),
            Parquet.model_validate(records),
            Csv.model_validate({**records, "encoding": self.encoding}),
        )
