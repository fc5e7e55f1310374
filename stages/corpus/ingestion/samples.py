"""Samples of documents: a few of each source and rule that dropped them, and a few that were kept, drawn by a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import heappush, heappushpop

SAMPLE_CHARACTERS = 2000  # of a sampled text
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so multiplication permutes the 64-bit integers


class Samples:
    """The first `count` documents of each source and rule, in a pseudo-random order of their ids.

    The samples of several parts, offered to another instance, give the samples of the whole.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._heaps: dict[tuple[str, str, str], list[tuple[int, str, Mapping[str, str]]]] = defaultdict(list)

    def offer(self, row: Mapping[str, str]) -> None:
        """Offer a row of SAMPLE_COLUMNS; its text is cut to SAMPLE_CHARACTERS."""
        key = self._key(row["id"])
        heap = self._heaps[row["source"], row["operation"], row["rule"]]
        if len(heap) < self._count:
            heappush(heap, (-key, row["id"], {**row, "text": row["text"][:SAMPLE_CHARACTERS]}))
        elif heap and (-key, row["id"]) > heap[0][:2]:
            heappushpop(heap, (-key, row["id"], {**row, "text": row["text"][:SAMPLE_CHARACTERS]}))

    def takes(self, row: Mapping[str, str]) -> bool:
        """Whether `offer` would take a row with these values of `id`, `source`, `operation` and `rule`."""
        heap = self._heaps[row["source"], row["operation"], row["rule"]]
        return len(heap) < self._count or (bool(heap) and (-self._key(row["id"]), row["id"]) > heap[0][:2])

    def _key(self, id_: str) -> int:
        return ((int(id_[:16], 16) ^ self._seed) * _MULTIPLIER) & 0xFFFF_FFFF_FFFF_FFFF

    def rows(self) -> Iterator[Mapping[str, str]]:
        """The sampled rows, by source and rule, then in the order of the draw."""
        for key in sorted(self._heaps):
            yield from (row for _, _, row in sorted(self._heaps[key], key=lambda entry: (-entry[0], entry[1])))
