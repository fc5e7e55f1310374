"""What readers of records (JSON Lines, Parquet, CSV, datasets) share: one field is the text, some are labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages.base import StageError
from stages.corpus.operations.base import Drop
from stages.corpus.readers.base import Candidate, Part, too_long, usable
from stages.corpus.readers.places import FilePart, FileReader

NO_TEXT, NOT_A_RECORD = "no_text", "not_a_record"
LABELS = ("path", "url", "package", "license", "language")
BATCH_ROWS = 64


class RecordReader(FileReader):
    """Files of records. Their fields `path`, `url`, `package`, `license` and `language` are carried over."""

    text_field: str = "text"

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        """The candidates of a part, good and bad."""
        raise NotImplementedError

    def read(self, part: Part, max_bytes: int) -> Iterator[Candidate]:
        assert isinstance(part, FilePart)
        readable, total = False, 0
        for candidate in self.records(part, max_bytes):
            readable = readable or candidate.refused is None or candidate.refused.rule not in (NO_TEXT, NOT_A_RECORD)
            total += 1
            yield candidate
        whole = part.start == 0 and part.stop is None
        if total and whole and not readable:
            raise StageError(
                f"{part.url}: none of its {total} records has a text in {self.text_field!r}: if the text has another "
                "name, set reader.text_field; if the file is of another kind, take it out of reader.paths"
            )

    def candidate(self, part: FilePart, place: int, record: object, size: int, max_bytes: int) -> Candidate:
        """What a record holds. `size`: the bytes that are dropped with one that has no text."""
        if not isinstance(record, Mapping) or not isinstance(record.get(self.text_field), str):
            return refused(part, place, Drop(NO_TEXT, "", self.text_field), size)
        labels = {name: usable(record.get(name)) for name in LABELS}
        labels["path"] = labels["path"] or part.name
        # A lone surrogate in JSON ("\ud800") becomes bytes that are not UTF-8, for the first filter to find.
        data = record[self.text_field].encode("utf-8", "surrogatepass")
        if len(data) > max_bytes:
            drop = too_long(len(data), max_bytes)
            return Candidate(b"", place=place, refused=drop, refused_bytes=len(data), **labels)
        return Candidate(data, place=place, **labels)

    def check_columns(self, part: FilePart, columns: Mapping[str, Any], kinds: Iterable[str]) -> list[str]:
        """The columns to read. Raises StageError if the text is not among them."""
        if str(columns.get(self.text_field)) not in kinds:
            found = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            raise StageError(
                f"{part.url} has no text column {self.text_field!r} (its columns: {found}): set reader.text_field"
            )
        return [self.text_field, *(name for name in LABELS if name in columns and name != self.text_field)]


def refused(part: Part, place: int, drop: Drop, size: int) -> Candidate:
    return Candidate(b"", part.name, place, refused=drop, refused_bytes=size)
