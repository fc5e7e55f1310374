"""Takes out of texts the passages that were decided to go, and sees what is left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.corpus.ingestion.decisions import FIRST_RULING, Rule
from stages.corpus.ingestion.ledger import Counts
from stages.corpus.ingestion.text_rules import TextRules, encode
from stages.corpus.operations.operation import Drop

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Cut = Mapping[str, int]  # decisions.CUT: the number of its ruling, and its first and last byte (exclusive)


@dataclass(frozen=True)
class Remains:
    """A batch after the cuts: those that became too short for a document, by their place in it."""

    batch: pa.RecordBatch
    dropped: Mapping[int, Drop]


def cut(
    batch: pa.RecordBatch,
    cuts: Sequence[Sequence[Cut]],
    fates: np.ndarray,
    rules: Sequence[Rule],
    bounds: TextRules,
    counts: Counts,
) -> Remains:
    """The documents of a batch without the passages that are cut out of those that are kept; counts their bytes."""
    import pyarrow as pa

    places = [place for place, found in enumerate(cuts) if found and fates[place] < FIRST_RULING]
    if not places:
        return Remains(batch, {})
    texts, digests = batch["text"].to_pylist(), batch["digest"].to_pylist()
    dropped: dict[int, Drop] = {}
    for place in places:
        data, taken = _without(texts[place].encode(), cuts[place])
        cell = tuple(batch[name][place].as_py() for name in ("source", "language", "license"))
        for number, size in taken.items():
            counts.trimmed(*cell, f"{rules[number].operation}.{rules[number].rule}", size)
        texts[place], digests[place] = data.decode(), hashlib.sha256(data).hexdigest()
        if isinstance(left := encode(texts[place], bounds), Drop):
            dropped[place] = left
    for name, column in (("text", texts), ("digest", digests)):
        batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(column, pa.string()))
    return Remains(batch, dropped)


def _without(data: bytes, cuts: Sequence[Cut]) -> tuple[bytes, dict[int, int]]:
    """What is left of the bytes, and how many each ruling took; of what two would take, it was the first."""
    owners = bytearray(len(data))  # of every byte: the number of the ruling that takes it, and one; 0: it stays
    for passage in sorted(cuts, key=lambda passage: -passage["ruling"]):
        length = passage["stop"] - passage["start"]
        owners[passage["start"] : passage["stop"]] = bytes([passage["ruling"] + 1]) * length
    taken = {passage["ruling"]: owners.count(passage["ruling"] + 1) for passage in cuts}
    parts, start = [], 0
    for passage in sorted(cuts, key=lambda passage: passage["start"]):
        parts.append(data[start : max(passage["start"], start)])
        start = max(start, passage["stop"])
    return b"".join((*parts, data[start:])), {number: size for number, size in sorted(taken.items()) if size}
