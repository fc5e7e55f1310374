"""Reads datasets that Hugging Face's `datasets` wrote with `save_to_disk`, without that library: one document per row.

A dataset is a folder with `state.json`, which lists its Arrow files in order. A dataset dictionary is a folder with one
such folder per split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from stages.base import StageError
from stages.corpus.readers.arrow_messages import decoded_sizes
from stages.corpus.readers.decoded_size import BATCH_BYTES, MAX_DECODED_BYTES, check_decoded, decoded_error
from stages.corpus.readers.file_systems import FilePart, content_digest, unchanged
from stages.corpus.readers.parquet import columns_of, records_of
from stages.corpus.readers.read_position import tracking_position
from stages.corpus.readers.reader import Candidate, digest_of
from stages.corpus.readers.records import BATCH_ROWS, RecordReader

STATE, DICTIONARY = "state.json", "dataset_dict.json"
STATE_LIMIT_BYTES = 16 << 20


class Datasets(RecordReader):
    """Datasets saved to disk. `paths` are their folders; the text is in the column `text_field`."""

    kind: Literal["datasets"] = "datasets"
    splits: tuple[str, ...] = ()  # of a dataset dictionary; empty: all
    max_decoded_bytes: PositiveInt = MAX_DECODED_BYTES  # of a batch of rows, decompressed

    def suffixes(self) -> tuple[str, ...]:
        return (".arrow",)

    def digest_content(self, digest_file: Callable[[Path], str]) -> str:
        return digest_of([[[part.name, content_digest(part, digest_file)] for part in self.parts()], self.options()])

    def parts(self) -> list[FilePart]:
        found = [part for path in self.paths for folder in self._folders(Path(path)) for part in _files(folder)]
        if not found:
            raise StageError(f"reader.paths: the {STATE} of {', '.join(self.paths)} lists no Arrow file")
        return found

    def records(self, part: FilePart, max_bytes: int) -> Iterator[Candidate]:
        import pyarrow as pa

        try:
            self._check_sizes(part)
            with (
                unchanged(part),
                pa.memory_map(part.url) as file,
                tracking_position(file.tell),
                pa.ipc.open_stream(file) as stream,
            ):
                wanted = [self.text_field, *self.check_columns(part, *columns_of(stream.schema))]
                names = stream.schema.names
                columns = list(dict.fromkeys(name if name in names else name.partition(".")[0] for name in wanted))
                position = 0
                for number, batch in enumerate(stream):
                    batch.validate(full=True)
                    chosen = batch.select(columns)
                    check_decoded(chosen, self.max_decoded_bytes, part, f"batch {number}")
                    together = max(1, min(BATCH_ROWS, BATCH_BYTES // max(chosen.nbytes, 1)))  # no value is longer
                    for start in range(0, chosen.num_rows, together):
                        for record in records_of(chosen.slice(start, together), self.text_field):
                            yield self.candidate(part, position, record, 0, max_bytes)
                            position += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StageError(f"{part.url} is not a readable Arrow file: {error}") from None

    def _check_sizes(self, part: FilePart) -> None:
        """Raises StageError if a batch of rows is larger than `max_decoded_bytes`, ValueError if one is damaged."""
        import pyarrow as pa

        with pa.memory_map(part.url) as file:
            for number, size in enumerate(decoded_sizes(file)):
                if size > self.max_decoded_bytes:
                    raise decoded_error(part, f"message {number}", self.max_decoded_bytes)

    def _folders(self, path: Path) -> list[Path]:
        if (path / STATE).is_file():
            return [path]
        if not (path / DICTIONARY).is_file():
            raise StageError(
                f"reader.paths: {path} has neither {STATE} nor {DICTIONARY}; expected the result of `save_to_disk`"
            )
        names = _json(path / DICTIONARY).get("splits")
        found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        if missing := sorted(set(self.splits) - set(found)):
            raise StageError(
                f"reader.splits: {path} has no split {', '.join(missing)}; expected some of {', '.join(found)}"
            )
        return [_below(path, name) for name in self.splits or found]


def _files(folder: Path) -> Iterator[FilePart]:
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise StageError(f"{folder} selects rows of another dataset: call `flatten_indices()` before you save it")
    entries = state.get("_data_files")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
            file = _below(folder, entry["filename"])
            if not file.is_file():
                raise StageError(f"{folder / STATE} lists {file.name}, which does not exist")
            found = file.stat()
            name = f"{folder.name}/{file.name}"
            yield FilePart(name, found.st_size, url=str(file), modified_ns=found.st_mtime_ns)


def _below(folder: Path, name: str) -> Path:
    """A file in a folder, from the folder's description. Raises StageError for a path outside of it."""
    if Path(name).name != name:
        raise StageError(f"{folder} names {name!r}; expected the name of a file in this folder")
    return folder / name


def _json(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > STATE_LIMIT_BYTES:
            raise StageError(
                f"{path} is larger than {STATE_LIMIT_BYTES} bytes, so it is not the description of a dataset"
            )
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise StageError(f"{path} is not the description of a dataset: expected a JSON object")
    return found
