"""Removes the passages that rules decided to cut, and checks what is left of each text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.corpus.ingestion.counts import CellKey, Counts
from stages.corpus.ingestion.decisions import FIRST_DROPPED, DropReason
from stages.corpus.ingestion.text_rules import TextRules, encode
from stages.corpus.operations.operation import Drop

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Cut = Mapping[str, int]  # decisions.CUT_FIELDS


@dataclass(frozen=True)
class CutBatch:
    """A batch after the cuts, and the documents that became too short, by their position in the batch."""

    batch: pa.RecordBatch
    dropped: Mapping[int, Drop]


def cut(
    batch: pa.RecordBatch,
    cuts: Sequence[Sequence[Cut]],
    outcomes: np.ndarray,
    rules: Sequence[DropReason],
    bounds: TextRules,
    counts: Counts,
) -> CutBatch:
    """Cut the passages out of the documents that are kept, and count the bytes that each rule removed."""
    import pyarrow as pa

    positions = [position for position, found in enumerate(cuts) if found and outcomes[position] < FIRST_DROPPED]
    if not positions:
        return CutBatch(batch, {})
    texts, digests = batch["text"].to_pylist(), batch["digest"].to_pylist()
    dropped: dict[int, Drop] = {}
    for position in positions:
        data, removed = _without(texts[position].encode(), cuts[position])
        cell = CellKey(*(batch[name][position].as_py() for name in CellKey._fields))
        for number, size in removed.items():
            counts.trimmed(cell, f"{rules[number].operation}.{rules[number].rule}", size)
        texts[position], digests[position] = data.decode(), hashlib.sha256(data).hexdigest()
        if isinstance(left := encode(texts[position], bounds), Drop):
            dropped[position] = left
    for name, column in (("text", texts), ("digest", digests)):
        batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(column, pa.string()))
    return CutBatch(batch, dropped)


def _without(data: bytes, cuts: Sequence[Cut]) -> tuple[bytes, dict[int, int]]:
    """The bytes that are left, and how many each rule removed. A byte that two rules cut counts for the first one."""
    owners = bytearray(len(data))  # for every byte: 1 + the number of the rule that removes it; 0: it stays
    for passage in sorted(cuts, key=lambda passage: -passage["rule"]):
        length = passage["stop"] - passage["start"]
        owners[passage["start"] : passage["stop"]] = bytes([passage["rule"] + 1]) * length
    removed = {passage["rule"]: owners.count(passage["rule"] + 1) for passage in cuts}
    parts, start = [], 0
    for passage in sorted(cuts, key=lambda passage: passage["start"]):
        parts.append(data[start : max(passage["start"], start)])
        start = max(start, passage["stop"])
    return b"".join((*parts, data[start:])), {number: size for number, size in sorted(removed.items()) if size}
