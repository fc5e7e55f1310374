"""Repeated passages against brute force: the same cuts, whatever the memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.deduplication.substrings import RepeatedSubstrings
from stages.corpus.drafts import Drafts
from stages.corpus.index import SIGNATURE, Index

LENGTH = 8


def brute_force(texts: list[str], order: list[int]) -> dict[int, list[int]]:
    """Of each text the bytes that are in a passage of LENGTH that stood before, in the order of claim."""
    seen: set[bytes] = set()
    covered: dict[int, set[int]] = {row: set() for row in order}
    for row in order:
        data = texts[row].encode()
        for start in range(len(data) - LENGTH + 1):
            passage = data[start : start + LENGTH]
            if passage in seen:
                covered[row].update(range(start, start + LENGTH))
            seen.add(passage)
    return {row: sorted(bytes_) for row, bytes_ in covered.items() if bytes_}


def index_of(texts: list[str], ranks: list[int], shards: int) -> Index:
    table = np.zeros(len(texts), [(name, "u8") for name, _ in SIGNATURE])
    table["id_low"] = [(number * 7919) % 104_729 for number in range(len(texts))]
    table["size"] = [len(text.encode()) for text in texts]
    starts = np.linspace(0, len(texts), shards + 1).astype(np.int64)
    return Index(table, np.array(ranks, np.uint16), starts)


def drafts_of(texts: list[str], index: Index, folder: Path, memory_bytes: int) -> Drafts:
    schema = pa.schema([("text", pa.string())])
    files = []
    for shard in range(len(index.starts) - 1):
        rows = texts[index.starts[shard] : index.starts[shard + 1]]
        file = folder / f"{shard}.arrow"
        with pa.ipc.new_stream(str(file), schema) as writer:
            for text in rows:
                writer.write_batch(pa.record_batch({"text": [text]}, schema=schema))
        files.append(file)
    return Drafts(
        files=files,
        sources=["one"] * len(files),
        folder=folder / "measured",
        memory_bytes=memory_bytes,
        each=lambda what, function, work: [function(item) for item in work],
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="abé字", max_size=60), min_size=1, max_size=8),
    st.data(),
)
def test_cuts_are_those_of_brute_force(texts: list[str], data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    index = index_of(texts, ranks, shards=data.draw(st.integers(1, 3)))
    order = index.claim(np.flatnonzero(kept)).tolist()
    expected = brute_force(texts, order)
    with tempfile.TemporaryDirectory() as folder:
        drafts = drafts_of(texts, index, Path(folder), memory_bytes=data.draw(st.sampled_from([1 << 30, 2000])))
        cuts = RepeatedSubstrings(min_bytes=LENGTH).judge(drafts)(index, kept).cuts
    assert cuts is not None
    found: dict[int, list[int]] = {}
    for row, start, stop in zip(cuts.rows.tolist(), cuts.starts.tolist(), cuts.stops.tolist(), strict=True):
        texts[row].encode()[start:stop].decode()  # whole characters
        found.setdefault(row, []).extend(range(start, stop))
    for row in range(len(texts)):
        cut, every = set(found.get(row, [])), set(expected.get(row, []))
        assert cut <= every
        left_of_characters = every - cut  # at the ends of a passage, bytes of characters that are cut only in part
        assert all(texts[row].encode()[byte] >= 0x80 for byte in left_of_characters)
        assert len(left_of_characters) <= 4 * max(len(every), 1) // LENGTH
