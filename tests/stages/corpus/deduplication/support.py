"""Documents for tests of single rules, without a whole ingestion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.corpus.ingestion.document_index import SIGNATURE, DocumentIndex
from stages.corpus.ingestion.drafts import Drafts


def index_of(texts: Sequence[str], shards: int) -> DocumentIndex:
    table = np.zeros(len(texts), [(name, "u8") for name, _ in SIGNATURE])
    table["id_low"] = [(number * 7919) % 104_729 for number in range(len(texts))]
    table["key_high"] = [len(text) % 7 for text in texts]  # many alike in the first half of their key alone
    table["key_low"] = [hash(text) & 0xFFFF_FFFF for text in texts]
    return DocumentIndex(
        table=table,
        rank=np.array([number % 3 for number in range(len(texts))], np.uint16),
        starts=np.linspace(0, len(texts), shards + 1).astype(np.int64),
    )


def drafts_of(texts: Sequence[str], index: DocumentIndex, folder: Path, memory_bytes: int) -> Drafts:
    files = []
    for shard, (start, stop) in enumerate(pairwise(index.starts.tolist())):
        some = texts[start:stop]
        urls = [f"http://example.org/{len(text) % 5}" if len(text) % 3 else "" for text in some]
        batch = pa.record_batch({"text": pa.array(some, pa.string()), "url": pa.array(urls, pa.string())})
        files.append(folder / f"{shard}.arrow")
        with pa.ipc.new_stream(str(files[-1]), batch.schema) as writer:
            writer.write_batch(batch)
    return Drafts(
        files=files,
        sources=["one", "two"] * (len(files) // 2) + ["one"] * (len(files) % 2),
        folder=folder / "measured",
        memory_bytes=memory_bytes,
        map_shards=lambda phase, function, work: [function(item) for item in work],
        map_work=lambda phase, function, work, spread: [function(item) for item in work] and None,
    )
