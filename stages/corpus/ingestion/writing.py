"""The third phase for one shard: writes its documents into their splits and the rest into the ledger.

train.parquet, validation.parquet   the documents (no file where there are none)
dropped.parquet                     the complete ledger of the shard
samples.parquet                     a sample of the ledger with texts
families.parquet                    its documents that resemble others, without texts
family_texts.parquet                some of them with the beginning of their text
values.parquet                      the distributions of the numbers that operations compare, from the first phase
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.corpus import COLUMNS, DROPPED_COLUMNS, FAMILY_COLUMNS, KEPT, SAMPLE_COLUMNS, VALUES
from stages.artifacts.manifest import SPLITS, Split
from stages.corpus.ingestion.completion_markers import run_once
from stages.corpus.ingestion.counts import CellKey, Counts, drop_reason
from stages.corpus.ingestion.cutting import cut
from stages.corpus.ingestion.decisions import FIRST_DROPPED, TRAIN, VALIDATION, DropReason
from stages.corpus.ingestion.drafts import batches, share_of
from stages.corpus.ingestion.family_table import ROW_BYTES, FamilyTexts
from stages.corpus.ingestion.parquet_files import ROW_GROUP_BYTES, TableWriter, rows_of, schema, use_flat_memory
from stages.corpus.ingestion.reading import DRAFTS, DROPPED, SAMPLED
from stages.corpus.ingestion.samples import SAMPLE_CHARACTERS, Samples
from stages.corpus.ingestion.shard_progress import reporting_progress
from stages.corpus.ingestion.text_rules import OPERATION as TEXT
from stages.corpus.ingestion.text_rules import TextRules

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SPLIT_OUTCOMES: Mapping[Split, int] = {"train": TRAIN, "validation": VALIDATION}
FAMILIES, FAMILY_TEXTS = "families.parquet", "family_texts.parquet"
TOO_SHORT_AFTER_CUTS = 255  # an outcome that is known only once the passages are cut out


@dataclass(frozen=True)
class WriteShard:
    """What a worker needs to write one shard. Plain values: it is sent to another process."""

    read: Path  # the output of the first phase
    decision: Path  # the decision file of the shard
    decision_digest: str
    rules: tuple[DropReason, ...]
    bounds: TextRules
    samples: int  # documents per rule that are sampled with their text
    seed: int
    output: Path


def write_shard(work: WriteShard) -> dict[str, Any]:
    """Write a shard unless it is complete; returns its facts: `counts` (see `Counts.rows`), `splits` and `dropped`."""
    use_flat_memory()
    with reporting_progress(work.output, share_of(work.read / DRAFTS)):
        return run_once(work.output, {"decision": work.decision_digest}, lambda folder: _write(work, folder))


def split_file(split: Split) -> str:
    return f"{split}.parquet"


def _write(work: WriteShard, folder: Path) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    with pa.OSFile(str(work.decision)) as file, pa.ipc.open_stream(file) as stream:
        decided = stream.read_all()
    outcomes = decided["outcome"].to_numpy()
    counts, samples = Counts(), Samples(work.samples, work.seed)
    splits = {split: [0, 0] for split in SPLITS}
    family_texts = FamilyTexts()
    dropped = 0
    writers = {split: DocumentWriter(folder / split_file(split)) for split in SPLITS}
    with (
        TableWriter(folder / DROPPED, DROPPED_COLUMNS) as ledger,
        TableWriter(folder / FAMILIES, FAMILY_COLUMNS) as families,
    ):
        for row in rows_of(work.read / DROPPED):
            ledger.add(row)
            dropped += 1
        start = 0
        for batch in batches(work.read / DRAFTS):
            batch_outcomes = outcomes[start : start + batch.num_rows].copy()
            rows = decided.slice(start, batch.num_rows)
            values = rows["value"].to_pylist()
            remains = cut(batch, rows["cuts"].to_pylist(), batch_outcomes, work.rules, work.bounds, counts)
            batch = remains.batch
            for position, drop in remains.dropped.items():
                batch_outcomes[position], values[position] = TOO_SHORT_AFTER_CUTS, str(drop.value)
            for row in _family_rows(batch, rows["families"].to_pylist(), batch_outcomes, work.rules):
                family_texts.offer(row)
                families.add({**row, "text": ""}, ROW_BYTES)
            sizes = _sizes(batch)
            for split, writer in writers.items():
                chosen = batch_outcomes == SPLIT_OUTCOMES[split]
                _count_kept(counts, batch, sizes, chosen)
                writer.add(batch.filter(pa.array(chosen)))
                _sample_kept(batch, chosen, samples)
                splits[split][0] += int(chosen.sum())
                splits[split][1] += int(sizes[chosen].sum())
            dropped += _enter_dropped(work, batch, batch_outcomes, sizes, values, counts, samples, ledger.add)
            start += batch.num_rows
    for writer in writers.values():
        writer.close()
    if start != len(outcomes):
        raise RuntimeError(f"{work.read} holds {start} documents, but {work.decision} decides on {len(outcomes)}")
    shutil.copyfile(work.read / VALUES, folder / VALUES)
    for row in rows_of(work.read / SAMPLED):
        samples.offer(row)
    with TableWriter(folder / SAMPLED, SAMPLE_COLUMNS) as sampled:
        for sample in samples.rows():
            sampled.add(sample)
    with TableWriter(folder / FAMILY_TEXTS, FAMILY_COLUMNS) as shown:
        for with_text in family_texts.rows():
            shown.add(with_text)
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


def _enter_dropped(
    work: WriteShard,
    batch: pa.RecordBatch,
    outcomes: np.ndarray,
    sizes: np.ndarray,
    values: Sequence[str],
    counts: Counts,
    samples: Samples,
    enter: Callable[[Mapping[str, Any]], None],
) -> int:
    """Enter the dropped documents of a batch into the ledger; returns their number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = outcomes >= FIRST_DROPPED
    if not chosen.any():
        return 0
    lost = batch.filter(pa.array(chosen))
    texts = pc.utf8_slice_codeunits(lost["text"], 0, SAMPLE_CHARACTERS).to_pylist()
    rows = lost.drop_columns(["text"]).to_pylist()
    lost_values = [value for value, is_lost in zip(values, chosen, strict=True) if is_lost]
    too_short = DropReason(TEXT, "too_short", str(work.bounds.min_characters))
    for row, text, outcome, size, value in zip(rows, texts, outcomes[chosen], sizes[chosen], lost_values, strict=True):
        reason = too_short if outcome == TOO_SHORT_AFTER_CUTS else work.rules[outcome - FIRST_DROPPED]
        row |= {"operation": reason.operation, "rule": reason.rule, "threshold": reason.threshold, "value": value}
        cell = CellKey(row["source"], row["language"], row["license"])
        counts.dropped(cell, drop_reason(reason.operation, reason.rule), int(size))
        enter({**row, "bytes": int(size)})
        samples.offer({**{name: row[name] for name in SAMPLE_COLUMNS if name != "text"}, "text": text})
    return len(rows)


def _sample_kept(batch: pa.RecordBatch, chosen: np.ndarray, samples: Samples) -> None:
    """Offer the chosen documents, which are kept, as samples."""
    import numpy as np

    ids, sources = batch["id"], batch["source"]
    for position in np.flatnonzero(chosen).tolist():
        drawn = {"id": ids[position].as_py(), "source": sources[position].as_py(), "operation": "", "rule": KEPT}
        if samples.takes(drawn):
            others = {name: batch[name][position].as_py() for name in SAMPLE_COLUMNS if name in batch.schema.names}
            samples.offer({"value": "", "threshold": "", **others, **drawn})


def _count_kept(counts: Counts, batch: pa.RecordBatch, sizes: np.ndarray, chosen: np.ndarray) -> None:
    """Count the chosen documents as kept."""
    import numpy as np
    import pyarrow as pa

    if not chosen.any():
        return
    mask = pa.array(chosen)
    bits = np.frexp(sizes[chosen].astype(np.float64))[1]  # 2**(bits - 1) <= size < 2**bits
    columns = {name: batch[name].filter(mask) for name in CellKey._fields}
    table = pa.table({**columns, "bits": bits, "bytes": sizes[chosen]})
    grouped = table.group_by([*CellKey._fields, "bits"]).aggregate([("bytes", "count"), ("bytes", "sum")])
    for row in grouped.to_pylist():
        cell = CellKey(row["source"], row["language"], row["license"])
        counts.kept(cell, row["bits"], row["bytes_count"], row["bytes_sum"])


def _sizes(batch: pa.RecordBatch) -> np.ndarray:
    """The bytes of each document's text. int64 [documents]."""
    import pyarrow.compute as pc

    sizes: np.ndarray = pc.binary_length(batch["text"]).cast("int64").to_numpy()
    return sizes


def _family_rows(
    batch: pa.RecordBatch,
    families: Sequence[Sequence[Mapping[str, Any]]],
    outcomes: np.ndarray,
    rules: Sequence[DropReason],
) -> list[dict[str, Any]]:
    """The rows of FAMILY_COLUMNS of a batch."""
    rows = []
    for position, found in enumerate(families):
        for family in found:
            columns = {name: batch[name][position].as_py() for name in ("id", "source", "path", "text")}
            columns["text"] = columns["text"][:SAMPLE_CHARACTERS]
            rule, kept = rules[family["rule"]].rule, bool(outcomes[position] < FIRST_DROPPED)
            row = {"family": family["first"], "rule": rule, "similarity": family["similarity"], "kept": kept}
            rows.append({**columns, **row})
    return rows
