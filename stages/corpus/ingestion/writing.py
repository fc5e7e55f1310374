"""The third phase, one shard: its documents into their splits, the rest into the ledger.

train.parquet, validation.parquet   the documents (no file where there are none)
dropped.parquet                     the ledger of the shard, whole
samples.parquet                     a few of these with their text
families.parquet                    its documents that are like others (no file where there are none)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.corpus import COLUMNS, DROPPED_COLUMNS, FAMILY_COLUMNS, SAMPLE_COLUMNS
from stages.artifacts.manifest import SPLITS, Split
from stages.corpus.ingestion.completion_markers import finish
from stages.corpus.ingestion.cutting import cut
from stages.corpus.ingestion.decisions import FIRST_RULING, TRAIN, VALIDATION, Rule
from stages.corpus.ingestion.drafts import batches, share_of
from stages.corpus.ingestion.ledger import SAMPLE_CHARACTERS, Counts, Samples, reason
from stages.corpus.ingestion.parquet_files import ROW_GROUP_BYTES, TableWriter, rows_of, schema, use_flat_memory
from stages.corpus.ingestion.reading import DRAFTS, DROPPED, SAMPLED
from stages.corpus.ingestion.shard_progress import telling
from stages.corpus.ingestion.text_rules import OPERATION as TEXT
from stages.corpus.ingestion.text_rules import TextRules

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FATES: Mapping[Split, int] = {"train": TRAIN, "validation": VALIDATION}
FAMILIES = "families.parquet"
LEFT_TOO_LITTLE = 255  # a fate, beside those that were decided: not a document any more without what was cut


@dataclass(frozen=True)
class WriteShard:
    """What a worker needs to know to write one shard. Plain values."""

    read: Path  # where the first phase left the shard
    decision: Path  # the file of its fates
    decision_digest: str
    rules: tuple[Rule, ...]
    bounds: TextRules
    samples: int  # kept with their text, of each rule
    seed: int
    place: Path


def write_shard(work: WriteShard) -> dict[str, Any]:
    """The facts of a shard that was written: `counts` as `Counts.rows` tells them, `splits`, and `dropped`."""
    use_flat_memory()
    with telling(work.place, share_of(work.read / DRAFTS)):
        return finish(work.place, {"decision": work.decision_digest}, lambda folder: _write(work, folder))


def split_file(split: Split) -> str:
    return f"{split}.parquet"


def _write(work: WriteShard, folder: Path) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    with pa.OSFile(str(work.decision)) as file, pa.ipc.open_stream(file) as stream:
        decided = stream.read_all()
    fates = decided["fate"].to_numpy()
    counts, samples = Counts(), Samples(work.samples, work.seed)
    splits = {split: [0, 0] for split in SPLITS}
    dropped = 0
    writers = {split: DocumentWriter(folder / split_file(split)) for split in SPLITS}
    with (
        TableWriter(folder / DROPPED, DROPPED_COLUMNS) as ledger,
        TableWriter(folder / FAMILIES, FAMILY_COLUMNS, optional=True) as families,
    ):
        for row in rows_of(work.read / DROPPED):
            ledger.add(row)
            dropped += 1
        start = 0
        for batch in batches(work.read / DRAFTS):
            here = fates[start : start + batch.num_rows].copy()
            told = decided.slice(start, batch.num_rows)
            values = told["value"].to_pylist()
            remains = cut(batch, told["cuts"].to_pylist(), here, work.rules, work.bounds, counts)
            batch = remains.batch
            for place, drop in remains.dropped.items():
                here[place], values[place] = LEFT_TOO_LITTLE, str(drop.value)
            for row in _family_rows(batch, told["families"].to_pylist(), here, work.rules):
                families.add(row)
            sizes = _sizes(batch)
            for split, writer in writers.items():
                chosen = here == FATES[split]
                _count(counts, batch, sizes, chosen)
                writer.add(batch.filter(pa.array(chosen)))
                splits[split][0] += int(chosen.sum())
                splits[split][1] += int(sizes[chosen].sum())
            dropped += _drop(work, batch, here, sizes, values, counts, samples, ledger.add)
            start += batch.num_rows
    for writer in writers.values():
        writer.close()
    if start != len(fates):
        raise RuntimeError(f"{work.read} has {start} drafts, {work.decision} tells of {len(fates)}")
    for row in rows_of(work.read / SAMPLED):
        samples.offer(row)
    with TableWriter(folder / SAMPLED, SAMPLE_COLUMNS) as sampled:
        for sample in samples.rows():
            sampled.add(sample)
    return {"counts": counts.rows(), "splits": splits, "dropped": int(np.int64(dropped))}


class DocumentWriter:
    """Documents as one Parquet file, in row groups of bounded size. There is no file if there is no document."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._writer: Any = None

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._pending.append(batch)
            self._pending_bytes += int(_sizes(batch).sum())
            if self._pending_bytes >= ROW_GROUP_BYTES:
                self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        if not self._pending:
            return
        if self._writer is None:
            plain = [name for name in COLUMNS if name not in ("id", "text", "digest")]
            self._writer = ParquetWriter(
                self._path, schema(COLUMNS), compression="zstd", use_dictionary=plain, write_statistics=False
            )
        table = pa.Table.from_batches(self._pending)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending, self._pending_bytes = [], 0


def _drop(
    work: WriteShard,
    batch: pa.RecordBatch,
    fates: np.ndarray,
    sizes: np.ndarray,
    values: Sequence[str],
    counts: Counts,
    samples: Samples,
    enter: Callable[[Mapping[str, Any]], None],
) -> int:
    """Enter the documents of a batch that a ruling drops; how many there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = fates >= FIRST_RULING
    if not chosen.any():
        return 0
    mask = pa.array(chosen)
    lost = batch.filter(mask)
    texts = pc.utf8_slice_codeunits(lost["text"], 0, SAMPLE_CHARACTERS).to_pylist()
    rows = lost.drop_columns(["text"]).to_pylist()
    told = [value for value, lost in zip(values, chosen, strict=True) if lost]
    too_short = Rule(TEXT, "too_short", str(work.bounds.min_characters))
    for row, text, fate, size, value in zip(rows, texts, fates[chosen], sizes[chosen], told, strict=True):
        rule = too_short if fate == LEFT_TOO_LITTLE else work.rules[fate - FIRST_RULING]
        row |= {"operation": rule.operation, "rule": rule.rule, "threshold": rule.threshold, "value": value}
        counts.dropped(row["source"], row["language"], row["license"], reason(rule.operation, rule.rule), int(size))
        enter({**row, "bytes": int(size)})
        samples.offer({**{name: row[name] for name in SAMPLE_COLUMNS if name != "text"}, "text": text})
    return len(rows)


def _count(counts: Counts, batch: pa.RecordBatch, sizes: np.ndarray, chosen: np.ndarray) -> None:
    """Count the chosen documents as kept."""
    import numpy as np
    import pyarrow as pa

    if not chosen.any():
        return
    mask = pa.array(chosen)
    bits = np.frexp(sizes[chosen].astype(np.float64))[1]  # 2**(bits - 1) <= size < 2**bits
    table = pa.table({
        "source": batch["source"].filter(mask),
        "language": batch["language"].filter(mask),
        "license": batch["license"].filter(mask),
        "bits": bits,
        "bytes": sizes[chosen],
    })  # fmt: skip
    keys = ["source", "language", "license", "bits"]
    for row in table.group_by(keys).aggregate([("bytes", "count"), ("bytes", "sum")]).to_pylist():
        counts.kept(*(row[key] for key in keys), row["bytes_count"], row["bytes_sum"])


def _sizes(batch: pa.RecordBatch) -> np.ndarray:
    """The bytes of each document's text."""
    import pyarrow.compute as pc

    sizes: np.ndarray = pc.binary_length(batch["text"]).cast("int64").to_numpy()
    return sizes


def _family_rows(
    batch: pa.RecordBatch, families: Sequence[Sequence[Mapping[str, Any]]], fates: np.ndarray, rules: Sequence[Rule]
) -> list[dict[str, Any]]:
    """The rows of FAMILY_COLUMNS of a batch."""
    rows = []
    for place, found in enumerate(families):
        for family in found:
            columns = {name: batch[name][place].as_py() for name in ("id", "source", "path", "text")}
            columns["text"] = columns["text"][:SAMPLE_CHARACTERS]
            rule, kept = rules[family["ruling"]].rule, bool(fates[place] < FIRST_RULING)
            row = {"family": family["first"], "rule": rule, "similarity": family["similarity"], "kept": kept}
            rows.append({**columns, **row})
    return rows
