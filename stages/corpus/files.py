"""Reads files of text, JSON Lines and Parquet that globs name.

    .txt .md .rst               one document a file
    .jsonl (.gz, .zst)          one document a line: an object with the text in `text_field`
    .parquet                    one document a row, the text in the column `text_field`

Fields `source`, `path`, `package`, `license` and `language` of a record are carried over. A bad line is dropped and
counted; a file that is not of its suffix's kind is an error.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, field_validator

from stages.base import StageError
from stages.corpus.source import TOO_LONG, Candidate, Source, digest_of

NOT_JSON, NO_TEXT = "not_json", "no_text"
TEXT, LINES, TABLE = (".txt", ".md", ".rst"), (".jsonl", ".jsonl.gz", ".jsonl.zst"), (".parquet",)
LABELS = ("source", "path", "package", "license", "language")
LABEL_LIMIT = 1024  # characters of a label that a record may bring
ESCAPED_BYTES = 6  # that one byte of text may take in JSON: "\\u0000"
BATCH_ROWS = 64


@dataclass(frozen=True)
class TextFile:
    """One file to read, and its name below the fixed part of the glob that found it."""

    file: Path
    name: str


class Files(Source[TextFile]):
    """Files that globs name, on a file system that every node sees."""

    reader: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)  # globs; "**" crosses folders; relative to where the command runs
    text_field: str = "text"
    # Labels of documents that bring none of their own.
    source: str = "files"
    license: str = "unknown"
    language: str = ""

    @field_validator("paths")
    @classmethod
    def _absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        # Workers run elsewhere than the command did.
        return tuple(os.path.abspath(os.path.expanduser(path)) for path in paths)

    def digest(self, digest_file: Callable[[Path], str]) -> str:
        files = sorted([part.name, digest_file(part.file)] for part in self.parts())
        return digest_of([files, self.text_field, self.source, self.license, self.language])

    def parts(self) -> list[TextFile]:
        found: dict[Path, TextFile] = {}
        for pattern in self.paths:
            base = _base(pattern)
            for match in sorted(glob.glob(pattern, recursive=True)):
                file = Path(match)
                if not file.is_file():
                    continue
                if not match.endswith(TEXT + LINES + TABLE):
                    raise StageError(
                        f"source.paths: {file} has no suffix that can be read; expected one of "
                        f"{', '.join(TEXT + LINES + TABLE)}: narrow the glob {pattern} or convert the file"
                    )
                found.setdefault(file.resolve(), TextFile(file, file.relative_to(base).as_posix()))
        if not found:
            raise StageError(f"source.paths: nothing matches {', '.join(self.paths)}")
        return sorted(found.values(), key=lambda part: (part.name, str(part.file)))

    def read(self, part: TextFile, max_bytes: int) -> Iterator[Candidate]:
        if part.name.endswith(TEXT):
            yield self._whole(part, max_bytes)
            return
        read = self._rows if part.name.endswith(TABLE) else self._lines
        readable, total = False, 0
        for candidate in read(part, max_bytes):
            readable = readable or candidate.refused not in (NOT_JSON, NO_TEXT)
            total += 1
            yield candidate
        if total and not readable:
            raise StageError(
                f"{part.file}: none of its {total} records has a text in {self.text_field!r}: if the text has another "
                "name, set source.text_field; if the file is of another kind, take it out of source.paths"
            )

    def _whole(self, part: TextFile, max_bytes: int) -> Candidate:
        try:
            size = part.file.stat().st_size
            if size > max_bytes:
                return self._candidate(part, 0, {}, b"", TOO_LONG, size)
            return self._candidate(part, 0, {}, part.file.read_bytes())
        except OSError as error:
            raise StageError(f"{part.file} cannot be read: {error.strerror}") from None

    def _lines(self, part: TextFile, max_bytes: int) -> Iterator[Candidate]:
        limit = max_bytes * ESCAPED_BYTES + (64 << 10)
        with _opened(part.file) as stream:
            row = -1
            while line := stream.readline(limit):
                row += 1
                size = len(line)
                while not line.endswith(b"\n") and len(line) == limit:
                    line = stream.readline(limit)  # the rest of an endless line is counted, not kept
                    size += len(line)
                if size > limit:
                    yield self._candidate(part, row, {}, b"", TOO_LONG, size)
                elif line.strip():
                    yield self._parsed(part, row, line, max_bytes)

    def _parsed(self, part: TextFile, row: int, line: bytes, max_bytes: int) -> Candidate:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return self._candidate(part, row, {}, b"", NOT_JSON, len(line))
        if not isinstance(record, dict) or not isinstance(record.get(self.text_field), str):
            return self._candidate(part, row, {}, b"", NO_TEXT, len(line))
        return self._record(part, row, record, max_bytes)

    def _rows(self, part: TextFile, max_bytes: int) -> Iterator[Candidate]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(part.file) as table:
                kinds = {field.name: str(field.type) for field in table.schema_arrow}
                if kinds.get(self.text_field) not in ("string", "large_string"):
                    raise StageError(
                        f"{part.file} has no text column {self.text_field!r} (its columns: "
                        f"{', '.join(f'{name} {kind}' for name, kind in kinds.items())}): set source.text_field"
                    )
                columns = [self.text_field, *(name for name in LABELS if name in kinds)]
                row = 0
                for batch in table.iter_batches(BATCH_ROWS, columns=columns):
                    for record in batch.to_pylist():
                        if record[self.text_field] is None:
                            yield self._candidate(part, row, {}, b"", NO_TEXT, 0)
                        else:
                            yield self._record(part, row, record, max_bytes)
                        row += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise StageError(f"{part.file} is not a readable Parquet file: {error}") from None

    def _record(self, part: TextFile, row: int, record: Mapping[str, Any], max_bytes: int) -> Candidate:
        # A lone surrogate in JSON ("\ud800") becomes bytes that are not UTF-8, for the filters to find.
        data = record[self.text_field].encode("utf-8", "surrogatepass")
        if len(data) > max_bytes:
            return self._candidate(part, row, record, b"", TOO_LONG, len(data))
        return self._candidate(part, row, record, data)

    def _candidate(
        self,
        part: TextFile,
        row: int,
        record: Mapping[str, Any],
        data: bytes,
        refused: str | None = None,
        size: int = 0,
    ) -> Candidate:
        def label(name: str, default: str) -> str:
            value = record.get(name)
            usable = isinstance(value, str) and value and value.isprintable() and len(value) <= LABEL_LIMIT
            return value if usable else default  # type: ignore[return-value]

        return Candidate(
            data,
            source=label("source", self.source),
            path=label("path", part.name),
            package=label("package", ""),
            license=label("license", self.license),
            language=label("language", self.language),
            row=row,
            refused=refused,
            refused_bytes=size,
        )


def _base(pattern: str) -> Path:
    """The folder before the first part of a glob that has a wildcard; the file's folder if none has."""
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed by its suffix. Raises StageError if it is not what its suffix says."""
    import zstandard

    try:
        with file.open("rb") as raw:
            if file.suffix == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=raw))
            elif file.suffix == ".zst":
                yield io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
            else:
                yield raw
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise StageError(f"{file} cannot be read as {file.suffix}: {error}") from None
