"""Near-duplicates by SimHash, as ROOTS did it: fingerprints of 64 bits that differ in a few of them.

A fingerprint is the majority, bit by bit, of the hashes of a text's runs of words (Charikar, "Similarity estimation
techniques from rounding algorithms", 2002). A passage that only one of two texts has moves few bits if the rest is
long, so of long texts it takes those for equal that are not: ROOTS' authors say so. Texts of more than `max_words`
are therefore not compared; for these, rule `substrings` takes out what was there before and leaves what was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stages.corpus.deduplication import families
from stages.corpus.deduplication.rule import Rule
from stages.corpus.deduplication.shard_arrays import gathered, mapped
from stages.corpus.ingestion.document_index import Index, Judge, Ruling
from stages.corpus.ingestion.drafts import Drafts, Measure, texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from stages.corpus.statistics.shingles import Shingles

FINGERPRINTS = "simhash.bin"
FINGERPRINT = [("bits", "<u8"), ("words", "<u4")]
BITS = 64


class SimHash(Measure):
    """The fingerprint and the number of words of every draft."""

    window_words: PositiveInt

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        from stages.corpus.statistics.shingles import shingles

        documents = 0
        with (folder / FINGERPRINTS).open("wb") as file:
            for group in texts(drafts):
                table = np.empty(len(group), FINGERPRINT)
                table["bits"] = fingerprints(shingles(group, self.window_words))
                table["words"] = np.diff(shingles(group, 1).starts)
                table.tofile(file)
                documents += len(group)
        return {"documents": documents}


class SimilarFingerprints(Rule):
    """Texts whose fingerprints differ in at most `max_distance` of 64 bits. Not for texts of over `max_words`."""

    rule: Literal["simhash"] = "simhash"
    max_distance: int = Field(default=4, ge=0, le=16)  # ROOTS' numbers for English, as are the two below
    blocks: int = Field(default=6, ge=2, le=16)  # of a fingerprint: pairs with blocks - max_distance equal are compared
    window_words: PositiveInt = 6
    max_words: PositiveInt | None = 1000  # null: no guard

    @model_validator(mode="after")
    def _blocks_suffice(self) -> Self:
        if self.blocks <= self.max_distance:
            raise ValueError(f"blocks is {self.blocks}; to find every pair it must exceed max_distance")
        return self

    def judge(self, drafts: Drafts) -> Judge:
        folders, _ = drafts.measured(self.rule, SimHash(window_words=self.window_words))

        def judge(index: Index, kept: np.ndarray) -> Ruling:
            import numpy as np

            shards = mapped([folder / FINGERPRINTS for folder in folders], index.starts, FINGERPRINT)
            longest = self.max_words or np.iinfo(np.uint32).max
            fit = [(shard["words"] > 0) & (shard["words"] <= longest) for shard in shards]
            members = index.claim(np.flatnonzero(kept & np.concatenate([np.empty(0, bool), *fit])))

            def bits(rows: np.ndarray) -> np.ndarray:
                found: np.ndarray = gathered(shards, index.starts, rows)["bits"]
                return found

            def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
                return 1 - np.bitwise_count(bits(one) ^ bits(other)) / BITS

            def masked(mask: int, rows: np.ndarray) -> np.ndarray:
                return bits(rows) & np.uint64(mask)

            masks = _masks(self.blocks, self.blocks - self.max_distance)
            tables = [partial(masked, mask) for mask in masks]
            labels = families.find(members, tables, alike, 1 - self.max_distance / BITS, drafts)
            return families.ruling(index, self.rule, str(self.max_distance), members, labels, alike)

        return judge


def fingerprints(found: Shingles) -> np.ndarray:
    """The majority of the hashes of each text, bit by bit (uint64 [texts]); 0 for a text without a word."""
    import numpy as np

    result = np.zeros(len(found.starts) - 1, np.uint64)
    counts = np.diff(found.starts)
    holding = np.flatnonzero(counts)
    if len(holding):
        bits = np.unpackbits(found.hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        ones = np.add.reduceat(bits, found.starts[:-1][holding], axis=0, dtype=np.int64)
        majority = np.packbits(ones * 2 > counts[holding, None], axis=1, bitorder="little")
        result[holding] = majority.view("<u8")[:, 0]
    return result


def _masks(blocks: int, equal: int) -> list[int]:
    """For each choice of `equal` blocks: the bits in them. Two fingerprints of which no more than blocks - equal differ
    are equal in one of the choices."""
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    masks = [sum(1 << bit for bit in range(start, stop)) for start, stop in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(masks, equal)]
