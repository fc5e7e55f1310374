"""Near-duplicates by SimHash, as in ROOTS: texts whose 64-bit fingerprints differ in a few bits.

A fingerprint is the bitwise majority of the hashes of a text's shingles (Charikar, "Similarity estimation techniques
from rounding algorithms", 2002). In long texts, a passage that only one of them has changes few bits, so long texts
that differ are taken for duplicates; the authors of ROOTS report this. Texts of more than `max_words` words are
therefore not compared; for these, use the rule `substrings`, which removes only the passages that are repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stages.corpus.deduplication.families import Comparable, drop_all_but_first, find_families, measure_name
from stages.corpus.deduplication.rule import DeduplicationRule
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure, texts
from stages.corpus.ingestion.rule_decision import Decider, RuleDecision
from stages.corpus.ingestion.shard_arrays import gather_rows, memory_mapped

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


class SimilarFingerprints(DeduplicationRule):
    """Texts whose fingerprints differ in at most `max_distance` of 64 bits. Not for texts of over `max_words`."""

    rule: Literal["simhash"] = "simhash"
    max_distance: int = Field(default=4, ge=0, le=16)  # these three are ROOTS' numbers for English
    blocks: int = Field(default=6, ge=2, le=16)  # pairs with blocks - max_distance equal blocks are compared
    window_words: PositiveInt = 6
    max_words: PositiveInt | None = 1000  # null: compare texts of any length

    @model_validator(mode="after")
    def _blocks_suffice(self) -> Self:
        if self.blocks <= self.max_distance:
            raise ValueError(f"blocks is {self.blocks}; it must be greater than max_distance to find every pair")
        return self

    def decider(self, drafts: Drafts) -> Decider:
        folders, _ = drafts.measured(self.rule, SimHash(window_words=self.window_words))

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            masks = _masks(self.blocks, self.blocks - self.max_distance)
            opened = partial(Fingerprints, folders, index.starts, masks)
            documents = Comparable(self.rule, measure_name(folders), opened, len(masks))
            members = index.by_precedence(np.flatnonzero(kept & opened().of_length(self.max_words)))
            labels = find_families(members, documents, 1 - self.max_distance / BITS, drafts)
            return drop_all_but_first(index, str(self.max_distance), members, labels, documents, drafts)

        return decide


class Fingerprints:
    """The fingerprints of all shards, memory-mapped."""

    def __init__(self, folders: list[Path], starts: np.ndarray, masks: list[int]) -> None:
        self._starts, self._masks = starts, masks
        self._shards = memory_mapped([folder / FINGERPRINTS for folder in folders], starts, FINGERPRINT)

    def of_length(self, max_words: int | None) -> np.ndarray:
        """Which rows (bool) have at least one word and at most `max_words` (None: any number)."""
        import numpy as np

        longest = max_words or np.iinfo(np.uint32).max
        fit = [(shard["words"] > 0) & (shard["words"] <= longest) for shard in self._shards]
        return np.concatenate([np.empty(0, bool), *fit])

    def keys(self, table: int, rows: np.ndarray) -> np.ndarray:
        """The bits of a choice of blocks. uint64 [rows]."""
        import numpy as np

        return self._bits(rows) & np.uint64(self._masks[table])

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The share of equal bits. float64 [rows]."""
        import numpy as np

        shares: np.ndarray = 1 - np.bitwise_count(self._bits(one) ^ self._bits(other)) / BITS
        return shares

    def _bits(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = gather_rows(self._shards, self._starts, rows)["bits"]
        return found


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
    """The bits of each choice of `equal` blocks.

    Two fingerprints that differ in at most blocks - equal bits are equal in at least one of the choices.
    """
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    masks = [sum(1 << bit for bit in range(start, stop)) for start, stop in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(masks, equal)]
