"""The first phase for one shard: reads documents, applies the operations of the source, and writes the index.

drafts.arrow      the documents that passed, in the order of reading
signatures.bin    a row of `document_index.SIGNATURE` for each of them
dropped.parquet   the ledger of those that did not
samples.parquet   a sample of the ledger with texts
"""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.corpus import COLUMNS, DROPPED_COLUMNS, SAMPLE_COLUMNS
from stages.artifacts.manifest import UNUSABLE
from stages.corpus.ingestion.completion_markers import run_once
from stages.corpus.ingestion.counts import CellKey, Counts, drop_reason
from stages.corpus.ingestion.parquet_files import TableWriter, schema, use_flat_memory
from stages.corpus.ingestion.samples import Samples
from stages.corpus.ingestion.shard_progress import reporting_progress
from stages.corpus.ingestion.shards import Shard
from stages.corpus.ingestion.text_rules import OPERATION as TEXT
from stages.corpus.ingestion.text_rules import TextRules, decode, encode, normalised
from stages.corpus.languages import canonical_code
from stages.corpus.operations.operation import Apply, Draft, Drop
from stages.corpus.readers.read_position import current_position
from stages.corpus.readers.reader import Candidate
from stages.corpus.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

DRAFTS, SIGNATURES, DROPPED, SAMPLED = "drafts.arrow", "signatures.bin", "dropped.parquet", "samples.parquet"
READ = "read"  # the name of the readers' own refusals in the ledger
BATCH_BYTES = 4 << 20  # of text
BATCH_ROWS = 1 << 14


@dataclass(frozen=True)
class ReadShard:
    """What a worker needs to read one shard. Plain values: it is sent to another process."""

    shard: Shard
    source: Source
    rules: TextRules
    samples: int  # documents per rule that are sampled with their text
    seed: int
    folder: Path  # of all shards: durable, visible to every node

    @property
    def output(self) -> Path:
        return self.folder / f"{self.shard.index:05d}"


def read_shard(work: ReadShard) -> dict[str, Any]:
    """Read a shard unless it is complete; returns its facts: `counts` (see `Counts.rows`) and `documents`."""
    use_flat_memory()

    def read(folder: Path) -> dict[str, Any]:
        reader = _ShardReader(work, folder)
        with reporting_progress(work.output, reader.share):
            return reader.run()

    return run_once(work.output, {}, read)


@dataclass(frozen=True)
class _Passed:
    """The result of the operations on a candidate: a text or a drop, and the bytes that each operation removed."""

    draft: Draft
    data: bytes  # of the text; as read, if the candidate was dropped before it was decoded
    drop: tuple[str, Drop] | None
    size: int
    trimmed: Sequence[tuple[str, int]]


class _ShardReader:
    def __init__(self, work: ReadShard, folder: Path) -> None:
        self._work, self._folder = work, folder
        self._name, self._source = work.shard.source, work.source
        self._chain = work.source.chain()
        self._operations: list[tuple[str, Apply]] = [
            (operation.operation, operation.function()) for operation in work.source.operations
        ]
        self._counts = Counts()
        self._samples = Samples(work.samples, work.seed)
        self._documents = 0
        self._bytes = max(work.shard.size, 1)
        self._part_bytes = self._parts_bytes = 0  # stored bytes of the current part, and of those before it

    def share(self) -> float:
        """The share of the shard that was read, 0 to 1. May be called by another thread."""
        return (self._parts_bytes + min(current_position(), self._part_bytes)) / self._bytes

    def run(self) -> dict[str, Any]:
        with (
            _DraftWriter(self._folder / DRAFTS) as drafts,
            (self._folder / SIGNATURES).open("wb") as signatures,
            TableWriter(self._folder / DROPPED, DROPPED_COLUMNS) as dropped,
        ):
            for part in self._work.shard.parts:
                self._part_bytes = part.size
                for candidate in self._source.reader.read(part, self._work.rules.max_raw_bytes):
                    self._enter(_without_mark(candidate), drafts.add, signatures.write, dropped.add)
                self._parts_bytes, self._part_bytes = self._parts_bytes + part.size, 0
        with TableWriter(self._folder / SAMPLED, SAMPLE_COLUMNS) as sampled:
            for row in self._samples.rows():
                sampled.add(row)
        return {"counts": self._counts.rows(), "documents": self._documents}

    def _enter(
        self,
        candidate: Candidate,
        add_draft: Callable[[dict[str, str], int], None],
        add_signature: Callable[[bytes], Any],
        add_dropped: Callable[[dict[str, Any]], None],
    ) -> None:
        passed = self._pass(candidate)
        draft = passed.draft
        cell = CellKey(self._name, draft.language, draft.license)
        self._counts.read(cell, candidate.size)
        for operation, size in passed.trimmed:
            self._counts.trimmed(cell, operation, size)
        for name in candidate.unusable:
            self._counts.counted(cell, f"{UNUSABLE}{name}", 1)
        for name, count in draft.counts.items():
            self._counts.counted(cell, name, count)
        digest = hashlib.sha256(candidate.data).hexdigest()
        row = {
            "id": self._id(candidate, digest),
            "source": self._name,
            "path": draft.path.encode("utf-8", "replace").decode(),
            "url": draft.url,
            "package": candidate.package,
            "license": draft.license,
            "language": draft.language,
        }
        if passed.drop is None:
            self._documents += 1
            key = hashlib.sha256(normalised(passed.data)).digest()[:16]
            add_signature(bytes.fromhex(row["id"]) + key + passed.size.to_bytes(8, "big"))
            if passed.data is not candidate.data:
                digest = hashlib.sha256(passed.data).hexdigest()
            add_draft({**row, "text": draft.text, "operations": self._chain, "digest": digest}, passed.size)
            return
        operation, drop = passed.drop
        self._counts.dropped(cell, drop_reason(operation, drop.rule), passed.size)
        reason = {"operation": operation, "rule": drop.rule, "value": shown(drop.value)}
        row = {**row, **reason, "threshold": shown(drop.threshold)}
        add_dropped({**row, "bytes": passed.size})
        self._samples.offer({**row, "text": passed.data[: 1 << 14].decode("utf-8", "replace")})

    def _pass(self, candidate: Candidate) -> _Passed:
        draft = Draft(
            text="",
            path=candidate.path,
            url=candidate.url,
            license=candidate.license or self._source.license,
            language=canonical_code(candidate.language or self._source.language),
        )
        if candidate.refused is not None:
            return _Passed(draft, b"", (READ, candidate.refused), candidate.size, ())
        text = decode(candidate.data, self._work.rules)
        if isinstance(text, Drop):
            return _Passed(draft, candidate.data, (TEXT, text), candidate.size, ())
        draft, data = replace(draft, text=text), candidate.data
        trimmed: list[tuple[str, int]] = []
        for name, operation in self._operations:
            made = operation(draft)
            if isinstance(made, Drop):
                return _Passed(draft, data, (name, made), len(data), trimmed)
            if made.text is not draft.text:
                before, data = len(data), made.text.encode("utf-8", "replace")
                trimmed.append((name, before - len(data)))
            draft = made
        kept = encode(draft.text, self._work.rules)
        if isinstance(kept, Drop):
            return _Passed(draft, data, (TEXT, kept), len(data), trimmed)
        return _Passed(draft, data, None, len(data), trimmed)

    def _id(self, candidate: Candidate, digest: str) -> str:
        """Identifies a document by its source, path and content as read, so that it is the same on every run."""
        identity = "\0".join((self._name, candidate.package, candidate.path, str(candidate.position), digest))
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class _DraftWriter:
    """Writes documents as a stream of Arrow batches. A context manager."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._schema = schema(COLUMNS)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(str(path), self._schema, options=options)
        self._columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
        self._bytes = 0

    def add(self, row: dict[str, str], size: int) -> None:
        for name, column in self._columns.items():
            column.append(row[name])
        self._bytes += size
        if self._bytes >= BATCH_BYTES or len(self._columns["id"]) >= BATCH_ROWS:
            self._flush()

    def __enter__(self) -> _DraftWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        batch: pa.RecordBatch = pa.record_batch(self._columns, schema=self._schema)
        self._writer.write_batch(batch)
        for column in self._columns.values():
            column.clear()
        self._bytes = 0


def _without_mark(candidate: Candidate) -> Candidate:
    """A byte order mark is not part of a text, whichever field or file it comes from."""
    marked = candidate.data.startswith(BOM_UTF8)
    return replace(candidate, data=candidate.data.removeprefix(BOM_UTF8)) if marked else candidate


def shown(value: float | str) -> str:
    """A value or threshold as the ledger writes it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
