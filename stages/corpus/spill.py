"""Sorts documents by id in bounded memory: on disk in buckets of neighbouring ids, read back one by one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.corpus import COLUMNS, Document

if TYPE_CHECKING:
    import pyarrow as pa

BUCKETS = 64  # memory to sort is the corpus's size over this
BUFFER_BYTES = 32 << 20


class Spill:
    """Documents in, the same documents out by id. `folder` is emptied at the start and removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._buffers: list[list[Document]] = [[] for _ in range(BUCKETS)]
        self._buffered_bytes = 0
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def add(self, document: Document) -> None:
        self._buffers[int(document.id[:2], 16) * BUCKETS // 256].append(document)
        self._buffered_bytes += len(document.text)
        if self._buffered_bytes > BUFFER_BYTES:
            self._flush()

    def sorted(self) -> Iterator[Document]:
        """Every document, by id; of equal ids in the order they were added. Ends the spill."""
        import pyarrow as pa

        self._flush()
        for writer in self._writers.values():
            writer.close()
        for bucket in sorted(self._writers):
            with pa.OSFile(str(self._file(bucket))) as file, pa.ipc.open_stream(file) as stream:
                documents = [Document(**row) for batch in stream for row in batch.to_pylist()]
            yield from sorted(documents, key=lambda document: document.id)
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        import pyarrow as pa

        schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        for bucket, documents in enumerate(self._buffers):
            if not documents:
                continue
            if bucket not in self._writers:
                self._writers[bucket] = pa.ipc.new_stream(str(self._file(bucket)), schema)
            columns = [pa.array(column, pa.string()) for column in zip(*map(astuple, documents), strict=True)]
            self._writers[bucket].write_batch(pa.record_batch(columns, schema=schema))
            documents.clear()
        self._buffered_bytes = 0

    def _file(self, bucket: int) -> Path:
        return self._folder / f"{bucket:02d}.arrow"
