"""Repeated passages against brute force: the same cuts, whatever the memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.deduplication import passages, substrings
from stages.corpus.deduplication.substrings import RepeatedSubstrings
from stages.corpus.ingestion import spill
from tests.stages.corpus.deduplication.support import drafts_of, index_of

LENGTH = 8


def brute_force(texts: list[str], order: list[int]) -> dict[int, list[int]]:
    """The bytes of each text that belong to a passage of LENGTH bytes that an earlier text, in the order of claim,
    has."""
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


@settings(max_examples=60)
@given(
    st.lists(st.text(alphabet="abé字", max_size=60), min_size=1, max_size=8),
    st.data(),
)
def test_cuts_are_those_of_brute_force(texts: list[str], data: st.DataObject) -> None:
    """The cuts do not depend on the memory limit, the batch size or the number of different hashes."""
    ranks = data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    index = replace(index_of(texts, shards=data.draw(st.integers(1, 3))), rank=np.array(ranks, np.uint16))
    order = index.by_precedence(np.flatnonzero(kept)).tolist()
    expected = brute_force(texts, order)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "FEWEST_RECORDS", data.draw(st.sampled_from([4, 1000])))
        patch.setattr(passages, "CHUNK_BYTES", data.draw(st.sampled_from([20, 1 << 16])))
        patch.setattr(substrings, "COMPARED", data.draw(st.sampled_from([16, 1 << 16])))
        if data.draw(st.booleans()):
            patch.setattr(substrings, "mixed", lambda hashes: hashes & np.uint64(1))
        drafts = drafts_of(texts, index, Path(folder), memory_bytes=1)
        cuts = RepeatedSubstrings(min_bytes=LENGTH).decider(drafts)(index, kept).cuts
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
