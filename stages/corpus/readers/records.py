"""The base class of readers of records (JSON Lines, Parquet, CSV, datasets): a field is the text, others are labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from stages.base import StageError
from stages.corpus.operations.operation import Drop
from stages.corpus.readers.file_systems import FilePart, FileReader
from stages.corpus.readers.reader import Candidate, Part, label_of, too_long, usable

NO_TEXT, NOT_A_RECORD = "no_text", "not_a_record"
BATCH_ROWS = 64

Label = Literal["path", "url", "package", "license", "language"]
LABELS: tuple[Label, ...] = get_args(Label)
FieldName = Annotated[str, Field(min_length=1)]


class RecordReader(FileReader):
    """Files of records. Their fields `path`, `url`, `package`, `license` and `language` label the documents."""

    text_field: str = "text"
    fields: Mapping[Label, FieldName] = {}  # other names of these fields; "meta.lang" is `lang` within `meta`

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        """All records of a part as candidates, refused ones included."""
        raise NotImplementedError

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        readable, total, first = False, 0, ""
        for candidate in self.records(part, max_bytes):
            drop = candidate.refused
            readable = readable or drop is None or drop.rule not in (NO_TEXT, NOT_A_RECORD)
            if drop is not None and not first and drop.value:
                first = (
                    f" (fields of the first record: {drop.value})"
                    if drop.rule == NO_TEXT
                    else f" (the first one: {drop.value}, expected {drop.threshold})"
                )
            total += 1
            yield candidate
        whole = part.start == 0 and part.stop is None
        if total and whole and not readable:
            raise StageError(
                f"{part.url}: none of its {total} records has a text in the field {self.text_field!r}"
                f"{first}: set reader.text_field to the field of the text, or remove the file from reader.paths"
            )

    def candidate(self, part: FilePart, position: int, record: object, size: int, max_bytes: int) -> Candidate:
        """The candidate of a record. `size`: the bytes that are dropped with a record without text."""
        if not isinstance(record, dict) or not isinstance(record.get(self.text_field), str):
            fields = usable(", ".join(map(str, record))) if isinstance(record, dict) else ""
            return refused(part, position, Drop(NO_TEXT, fields, self.text_field), size)
        values = {name: _within(record, self.fields.get(name, name), _MISSING) for name in LABELS}
        labels = {name: label_of(value) for name, value in values.items()}
        empty = [name for name, value in values.items() if not labels[name] and not _is_empty(value)]
        labelled = Candidate(
            b"",
            labels["path"] or part.name,
            position,
            url=labels["url"],
            package=labels["package"],
            license=labels["license"],
            language=labels["language"],
            unusable=tuple(name for name in empty if name in self.fields or values[name] is not _MISSING),
        )
        # A lone surrogate in JSON ("\ud800") becomes bytes that are not UTF-8, for the text rules to find.
        data = record[self.text_field].encode("utf-8", "surrogatepass")
        if len(data) > max_bytes:
            return replace(labelled, refused=too_long(len(data), max_bytes), refused_bytes=len(data))
        return replace(labelled, data=data)

    def check_columns(self, part: FilePart, columns: Mapping[str, Any], kinds: Iterable[str]) -> list[str]:
        """The columns to read. Raises StageError if the text or a declared label is not among `columns`."""
        if str(columns.get(self.text_field)) not in kinds:
            found = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            raise StageError(
                f"{part.url} has no text column {self.text_field!r} (its columns: {found}): set reader.text_field"
            )
        for label, field in self.fields.items():
            if _column(field, columns) not in columns:
                raise StageError(
                    f"{part.url} has no column {field!r} (its columns: {', '.join(columns)}): correct "
                    f"reader.fields.{label}"
                )
        wanted = (_column(self.fields.get(name, name), columns) for name in LABELS)
        return list(dict.fromkeys((self.text_field, *(name for name in wanted if name in columns))))


def refused(part: Part, position: int, drop: Drop, size: int) -> Candidate:
    return Candidate(b"", part.name, position, refused=drop, refused_bytes=size)


def _within(record: Mapping[str, Any], field: str, missing: object = None) -> object:
    """The value of a field of a record, or `missing`; "meta.lang" is a field within another one."""
    if field in record or "." not in field:
        return record.get(field, missing)
    found: object = record
    for name in field.split("."):
        if found is not None:
            found = found.get(name, missing) if isinstance(found, dict) else missing
    return found


_MISSING = object()


def _is_empty(value: object) -> bool:
    """Whether a record says that it has no value."""
    return value is None or value == "" or value != value  # NaN


def _column(field: str, columns: Iterable[str]) -> str:
    """The column that contains a field."""
    return field if field in columns else field.partition(".")[0]
