"""Repeated passages: cuts every passage that occurred before, verbatim (Lee et al. 2022, arXiv 2107.06499).

Candidates are found by the hashes of passages, which are grouped on disk, and compared byte by byte before anything is
cut, so the cuts are exact. Most passages are unique, and hashing and sorting all of them would take most of the time.
So passages are first represented by a few shorter grams (winnowing: Schleimer, Wilkerson and Aiken, "Winnowing: local
algorithms for document fingerprinting", 2003). The seed of a passage is its gram with the smallest hash, the first one
of several. Equal passages have equal seeds, so a passage whose seed is unique is unique.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stages.corpus.deduplication.passages import Chunk, Passages
from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure
from stages.corpus.ingestion.rule_decision import Cuts, Decider, RuleDecision, merge_cuts, merge_intervals, no_values
from stages.corpus.ingestion.spill import Spill, repeats
from stages.corpus.statistics.rolling import inverse_powers, mixed, prefix_sums

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TEXT, ENDS = "text.bin", "ends.bin"  # the concatenated texts, and the end of each (int64)
LONGEST_GRAM_BYTES = 64
COMPARED = 1 << 17  # bytes compared at a time


class ConcatenatedTexts(Measure):
    """The texts of a shard as one file of bytes, for random access."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        ends = [np.empty(0, np.int64)]
        size = 0
        with (folder / TEXT).open("wb") as file:
            for batch in drafts:
                parts = [text.encode() for text in batch["text"].to_pylist()]
                ends.append(np.cumsum([len(part) for part in parts], dtype=np.int64) + size)
                size += sum(map(len, parts))
                file.write(b"".join(parts))
        np.concatenate(ends).tofile(folder / ENDS)
        return {"bytes": size}


class RepeatedSubstrings(DeduplicationRule):
    """Cuts passages of at least `min_bytes` that occur earlier, in the same document or in one of higher precedence."""

    rule: Literal["substrings"] = "substrings"
    min_bytes: int = Field(default=50, ge=8, le=1 << 16)

    def decider(self, drafts: Drafts) -> Decider:
        folders, _ = drafts.measured(self.rule, ConcatenatedTexts())

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            ends = [np.fromfile(folder / ENDS, np.int64) for folder in folders]
            passages = Passages([folder / TEXT for folder in folders], ends, index, kept)
            cuts = repeated_passages(passages, self.min_bytes, drafts.folder, drafts.memory_bytes)
            return RuleDecision("deduplicate", self.rule, str(self.min_bytes), np.empty(0, np.int64), no_values, cuts)

        return decide


def repeated_passages(passages: Passages, length: int, folder: Path, memory_bytes: int) -> Cuts:
    """What is covered by passages of `length` bytes that occur earlier as well, in whole characters."""
    import numpy as np

    found: list[Cuts] = []
    with ExitStack() as stack:
        spill = stack.enter_context(Spill(folder, memory_bytes // 2))
        _candidates(passages, length, spill, folder, memory_bytes // 2)
        while len(spill):
            pairs = stack.enter_context(Spill(folder, memory_bytes // 2))  # by address, so that reads are in order
            for _, positions, firsts in repeats(spill):
                pairs.add(passages.addresses(positions).astype(np.uint64), firsts)
            spill.clear()
            # Passages with the hash of the first one but other bytes are compared among themselves in the next round.
            unlike = stack.enter_context(Spill(folder, memory_bytes // 2))
            for addresses, firsts in _ascending(pairs):
                same = _same(passages, addresses, passages.addresses(firsts), length)
                found.append(_cover(passages, addresses[same], length))
                others = addresses[~same]
                unlike.add(_hashes_at(passages, others, length), passages.positions(others))
            pairs.clear()
            spill = unlike
    return _of_characters(passages, merge_cuts(found))


def _candidates(passages: Passages, length: int, spill: Spill, folder: Path, memory_bytes: int) -> None:
    """Add to `spill` the hash and the position of every passage whose seed is not unique."""
    import numpy as np

    with Spill(folder, memory_bytes) as again:
        with Spill(folder, memory_bytes) as seeds:
            for chunk in passages.chunks():
                if len(chunk.data) >= length:
                    grams, of_passage, _ = _seeds(chunk, prefix_sums(chunk.data), length)
                    places = of_passage[np.append(True, of_passage[1:] != of_passage[:-1])[: len(of_passage)]]
                    seeds.add(mixed(grams[places]), chunk.moved(places, chunk.addresses))
            for _, addresses, firsts in repeats(seeds):
                for every in (addresses, firsts[np.append(True, firsts[1:] != firsts[:-1])]):
                    again.add(every.astype(np.uint64), np.zeros(len(every), np.int64))
        coming = (addresses for addresses, _ in _ascending(again))
        pending = next(coming, np.empty(0, np.int64))
        for chunk in passages.chunks():
            here = []
            while len(pending):
                upto = int(np.searchsorted(pending, chunk.last))
                here.append(pending[:upto])
                pending = pending[upto:]
                if len(pending):
                    break
                pending = next(coming, pending)
            if any(map(len, here)) and len(chunk.data) >= length:
                flags = np.zeros(len(chunk.data), bool)
                flags[chunk.places(np.concatenate(here))] = True
                prefix = prefix_sums(chunk.data)
                _, of_passage, within = _seeds(chunk, prefix, length)
                places = within[flags[of_passage]]
                spill.add(_hashes(prefix, places, length), chunk.moved(places, chunk.positions))


def _ascending(spill: Spill) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Records by ascending keys; the keys as int64."""
    import numpy as np

    for pieces in spill.parts():
        for keys, values in pieces():
            yield keys.astype(np.int64), values


def _seeds(chunk: Chunk, prefix: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hash of every gram of a chunk, and for every passage inside a text the place of its seed and its own place.

    Places ascend.
    """
    import numpy as np

    gram = min(length // 2, LONGEST_GRAM_BYTES)
    grams = prefix[gram:] - prefix[:-gram]
    grams *= inverse_powers(len(grams))
    bits = np.uint64((1 << len(prefix).bit_length()) - 1)  # the low bits hold a place, the others the hash
    least = (grams & ~bits) | np.arange(len(grams), dtype=np.uint64)
    span, width = length - gram + 1, 1  # grams of a passage; grams that `least` is the minimum of
    while width * 2 <= span:
        least = np.minimum(least[:-width], least[width:])
        width *= 2
    if width < span:
        least = np.minimum(least[: width - span], least[span - width :])
    inside = np.ones(len(least), bool)
    for end in chunk.ends.tolist()[:-1]:
        inside[max(end - length + 1, 0) : end] = False
    within = np.flatnonzero(inside)
    return grams, (least & bits).astype(np.int64)[within], within


def _hashes(prefix: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """The hashes of the passages that begin at places. uint64."""
    return mixed((prefix[places + length] - prefix[places]) * inverse_powers(len(prefix))[places])


def _hashes_at(passages: Passages, addresses: np.ndarray, length: int) -> np.ndarray:
    import numpy as np

    found = [np.empty(0, np.uint64)]
    for start in range(0, len(addresses), group := max(COMPARED // length, 1)):
        some = addresses[start : start + group]
        data = passages.bytes_of(some, np.full(len(some), length))
        found.append(_hashes(prefix_sums(data), np.arange(len(some)) * length, length))
    return np.concatenate(found)


def _same(passages: Passages, addresses: np.ndarray, others: np.ndarray, length: int) -> np.ndarray:
    """Whether the passages at addresses (ascending) equal those at `others`, byte by byte. bool."""
    import numpy as np

    same = np.zeros(len(addresses), bool)
    # Consecutive passages whose counterparts are consecutive too are compared as one run of bytes.
    new = np.append(True, (np.diff(addresses) != 1) | (np.diff(others) != 1))[: len(addresses)]
    new[::COMPARED] = True
    runs = np.flatnonzero(new)
    counts = np.diff(np.append(runs, len(addresses)))
    sizes = counts + length - 1
    groups = np.cumsum(sizes) // COMPARED
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(runs)]
    for start, stop in pairwise(edges):
        some, lengths = runs[start:stop], sizes[start:stop]
        if not len(some):
            continue
        unlike = passages.bytes_of(addresses[some], lengths) != passages.bytes_of(others[some], lengths)
        until = np.append(0, np.cumsum(unlike))  # the number of bytes that differ before each byte
        count = counts[start:stop]
        first = int(some[0])
        whole = np.arange(int(count.sum())) + np.repeat(np.arange(len(some)) * (length - 1), count)
        same[first : first + len(whole)] = until[whole + length] == until[whole]
    return same


def _cover(passages: Passages, addresses: np.ndarray, length: int) -> Cuts:
    """What is covered by the passages at addresses (ascending)."""
    import numpy as np

    new = np.append(True, np.diff(addresses) > 1)[: len(addresses)]
    first, last = addresses[new], addresses[np.append(new[1:], True)[: len(new)]]
    row = passages.rows(first)
    begins = passages.begins(row)
    return merge_intervals(row, first - begins, last - begins + length)


def _of_characters(passages: Passages, cuts: Cuts) -> Cuts:
    """The cuts shrunk to whole characters of UTF-8, which have up to three bytes after their first one."""
    import numpy as np

    begins, ends = passages.begins(cuts.rows), passages.begins(cuts.rows) + passages.sizes(cuts.rows)
    starts, stops = begins + cuts.starts, begins + cuts.stops
    for _ in range(3):
        starts += (starts < stops) & _within_character(passages, np.minimum(starts, ends - 1))
    for _ in range(3):
        stops -= (starts < stops) & (stops < ends) & _within_character(passages, np.minimum(stops, ends - 1))
    left = starts < stops
    return Cuts(cuts.rows[left], (starts - begins)[left], (stops - begins)[left])


def _within_character(passages: Passages, addresses: np.ndarray) -> np.ndarray:
    """Whether the byte at each address is not the first one of its character. bool."""
    import numpy as np

    pieces = [addresses[start : start + COMPARED] for start in range(0, len(addresses), COMPARED)]
    found = [passages.bytes_of(piece, np.ones(len(piece), np.int64)) & 0xC0 == 0x80 for piece in pieces]
    return np.concatenate([np.empty(0, bool), *found])
