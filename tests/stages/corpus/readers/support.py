"""Helpers for the tests of readers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa

from stages.corpus.readers.reader import Candidate, Reader


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(reader: Reader, max_bytes: int = 1000, range_bytes: int | None = None) -> list[Candidate]:
    parts = [piece for part in reader.parts() for piece in (reader.split(part, range_bytes) if range_bytes else [part])]
    return [candidate for part in parts for candidate in reader.read(part, max_bytes)]


def seen(found: list[Candidate]) -> list[tuple[bytes, str | None, int]]:
    return [(c.data, c.refused.rule if c.refused else None, c.size) for c in found]


def saved_dataset(folder: Path, texts: list[str], files: int = 2) -> None:
    """What `datasets` writes: its state, and Arrow streams."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    for n, name in enumerate(names):
        table = pa.table({"text": texts[n::files], "label": list(range(len(texts[n::files])))})
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
