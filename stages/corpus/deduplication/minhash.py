"""Near-duplicates by MinHash and locality-sensitive hashing: texts that share most of their shingles (runs of words).

The share of equal values in two signatures estimates the Jaccard similarity of two sets of shingles (Broder, "On the
resemblance and containment of documents", 1997). Two documents are compared if all values of a band are equal; with b
bands of r rows, documents of similarity s are compared with probability 1 - (1 - s**r)**b. Documents are dropped only
if the estimated similarity reaches the threshold: the bands choose the candidates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

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

SIGNATURES = "minhash.bin"  # uint32 [bands, documents, rows]
TRANSPOSED = 1 << 14  # documents whose signatures are transposed at a time
Library = Literal["rensa", "datasketch"]


class MinHash(Measure):
    """A signature of every draft: uint32 [bands, rows]."""

    bands: PositiveInt
    rows: PositiveInt
    shingle_words: PositiveInt
    seed: NonNegativeInt
    library: Library

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        from stages.corpus.statistics.shingles import shingles

        documents, band_bytes = 0, 4 * self.rows
        with tempfile.TemporaryFile(dir=folder) as whole, (folder / SIGNATURES).open("wb") as by_band:
            for group in texts(drafts):
                found = self.signatures(shingles(group, self.shingle_words))
                whole.write(found.tobytes())
                documents += len(found)
            whole.seek(0)
            for start in range(0, documents, TRANSPOSED):
                piece = np.frombuffer(whole.read(TRANSPOSED * self.bands * band_bytes), np.uint32)
                for band, values in enumerate(piece.reshape(-1, self.bands, self.rows).transpose(1, 0, 2)):
                    by_band.seek((band * documents + start) * band_bytes)
                    by_band.write(values.tobytes())
        return {"documents": documents}

    def signatures(self, found: Shingles) -> np.ndarray:
        """[texts, bands * rows] of uint32."""
        return _SIGNERS[self.library](found, self.bands * self.rows, self.seed)


class NearDuplicates(DeduplicationRule):
    """Texts whose shingles have an estimated Jaccard similarity of `similarity` or more, by MinHash."""

    rule: Literal["near"] = "near"
    similarity: float = Field(default=0.6, gt=0, le=1)
    bands: PositiveInt = 25
    rows: PositiveInt = 5
    shingle_words: PositiveInt = 5
    seed: NonNegativeInt = 1
    library: Library = "rensa"  # their signatures differ; set datasketch where rensa has no wheel

    def decider(self, drafts: Drafts) -> Decider:
        measure = MinHash(**{name: getattr(self, name) for name in MinHash.model_fields})
        folders, _ = drafts.measured(self.rule, measure)

        def decide(index: DocumentIndex, kept: np.ndarray) -> RuleDecision:
            import numpy as np

            opened = partial(Signatures, folders, index.starts, self.bands, self.rows)
            documents = Comparable(self.rule, measure_name(folders), opened, self.bands)
            members = index.by_precedence(np.flatnonzero(kept & opened().present()))
            labels = find_families(members, documents, self.similarity, drafts)
            return drop_all_but_first(index, f"{self.similarity:g}", members, labels, documents, drafts)

        return decide


class Signatures:
    """The signatures of all shards, memory-mapped."""

    def __init__(self, folders: list[Path], starts: np.ndarray, bands: int, rows: int) -> None:
        self._starts, self._bands, self._rows = starts, bands, rows
        self._shards = memory_mapped([folder / SIGNATURES for folder in folders], starts, "u4", (bands, -1, rows))

    def present(self) -> np.ndarray:
        """Which rows have a signature (bool): those with at least one word."""
        import numpy as np

        blank = np.uint32(0xFFFF_FFFF)
        return np.concatenate([np.empty(0, bool), *((shard[0] != blank).any(axis=1) for shard in self._shards)])

    def keys(self, table: int, rows: np.ndarray) -> np.ndarray:
        """The hash of a band of each row. uint64 [rows]."""
        import numpy as np

        from stages.corpus.statistics.rolling import mixed

        values = self._band(table, rows).astype(np.uint64)
        keys = np.full(len(rows), table, np.uint64)
        for column in range(self._rows):
            keys = mixed(keys * np.uint64(0x9E3779B97F4A7C15) + values[:, column])
        return keys

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The share of equal values in the signatures of two arrays of rows. float64 [rows]."""
        import numpy as np

        equal = np.zeros(len(one))
        for band in range(self._bands):
            equal += (self._band(band, one) == self._band(band, other)).sum(axis=1)
        return equal / (self._bands * self._rows)

    def _band(self, band: int, rows: np.ndarray) -> np.ndarray:
        """The values of a band: uint32 [rows, rows of a band]."""
        return gather_rows([shard[band] for shard in self._shards], self._starts, rows)


def _rensa(found: Shingles, permutations: int, seed: int) -> np.ndarray:
    import numpy as np
    from rensa import RMinHash

    starts = found.starts.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(found.hashes, starts, permutations, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(starts) - 1, permutations)


def _datasketch(found: Shingles, permutations: int, seed: int) -> np.ndarray:
    import itertools

    import numpy as np
    from datasketch import MinHash as Sketch

    first = Sketch(num_perm=permutations, seed=seed, hashfunc=_low_bits)
    same = {"seed": seed, "hashfunc": _low_bits, "permutations": first.permutations, "scheme": first.scheme}
    rows = []
    for start, stop in itertools.pairwise(found.starts.tolist()):
        sketch = Sketch(num_perm=permutations, **same)
        sketch.update_batch(found.hashes[start:stop].tolist())
        rows.append(sketch.hashvalues.astype(np.uint32))
    return np.array(rows, np.uint32).reshape(len(rows), permutations)


def _low_bits(value: int) -> int:
    return value & 0xFFFF_FFFF


_SIGNERS = {"rensa": _rensa, "datasketch": _datasketch}
