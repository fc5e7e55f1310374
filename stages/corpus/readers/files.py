"""Reads files of several formats, by suffix: text, JSON Lines, Parquet, CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

from pydantic import PositiveInt

from stages.corpus.readers.character_sets import UTF8, EncodingLabel
from stages.corpus.readers.csv_files import Csv, Quoting
from stages.corpus.readers.decoded_size import MAX_DECODED_BYTES
from stages.corpus.readers.file_systems import FilePart, FileReader
from stages.corpus.readers.jsonl import JsonLines
from stages.corpus.readers.parquet import Parquet
from stages.corpus.readers.reader import Candidate, Part
from stages.corpus.readers.records import FieldName, KeptFields, Label, labels_of_path
from stages.corpus.readers.text_files import Text


class Files(FileReader):
    """Files of .txt .md .rst (one document per file), .jsonl .parquet .csv .tsv (one document per record)."""

    kind: Literal["files"] = "files"
    encoding: EncodingLabel = UTF8  # of text, JSON Lines and CSV; a byte order mark in a file has precedence
    text_field: str = "text"  # of records
    fields: Mapping[Label, FieldName] = {}
    keep: KeptFields = ()  # of records: fields that become columns of the corpus, as text
    quoting: Quoting = "standard"  # of .csv and .tsv files
    max_decoded_bytes: PositiveInt = MAX_DECODED_BYTES  # of the pages of Parquet that are in memory together

    def suffixes(self) -> tuple[str, ...]:
        return tuple(suffix for reader in self._readers for suffix in reader.suffixes())

    def split(self, part: Part, size: int) -> list[Part]:
        return self._reader(part).split(part, size)

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        return self._reader(part).read(part, max_bytes)

    def path_labels(self, part: FilePart) -> Mapping[str, str]:
        return labels_of_path(part, self.fields)

    def kept_columns(self) -> tuple[str, ...]:
        return self.keep

    def _reader(self, part: Part) -> FileReader:
        readers = self._readers
        return next((reader for reader in readers if part.name.lower().endswith(reader.suffixes())), readers[0])

    @cached_property
    def _readers(self) -> tuple[FileReader, ...]:
        records = {name: getattr(self, name) for name in ("paths", "bad_files", "text_field", "fields", "keep")}
        return (
            Text(paths=self.paths, encoding=self.encoding),
            JsonLines.model_validate({**records, "encoding": self.encoding}),
            Parquet.model_validate({**records, "max_decoded_bytes": self.max_decoded_bytes}),
            Csv.model_validate({**records, "encoding": self.encoding, "quoting": self.quoting}),
        )
