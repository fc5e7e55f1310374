"""Exact duplicates: texts that are equal but for what does not count, by the hash of what is left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.base import StageError
from stages.corpus.deduplication.rule import Rule
from stages.corpus.drafts import Drafts, Measure, texts
from stages.corpus.index import Index, Judge, Ruling

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEYS = "keys.bin"  # two of ">u8" a document
Ignored = Literal["white_space", "digits_and_punctuation"]
_NO_LETTER = re.compile(r"[\W\d_]+")


class LetterKeys(Measure):
    """The hash of every draft's letters: ROOTS' key of a document, which knows no white space, digits, punctuation."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        documents = 0
        with (folder / KEYS).open("wb") as file:
            for group in texts(drafts):
                for text in group:
                    letters = _NO_LETTER.sub("", text)
                    file.write(sha256((letters or text).encode()).digest()[:16])
                documents += len(group)
        return {"documents": documents}


class ExactDuplicates(Rule):
    """Texts that are equal but for their white space, or for all that is no letter (as ROOTS compared documents)."""

    rule: Literal["exact"] = "exact"
    ignore: Ignored = "white_space"

    def judge(self, drafts: Drafts) -> Judge:
        if self.ignore == "white_space":
            return exact_duplicates
        folders, _ = drafts.measured(self.rule, LetterKeys())

        def judge(index: Index, kept: np.ndarray) -> Ruling:
            import numpy as np

            none = np.empty((0, 2), np.uint64)
            keys = [np.fromfile(folder / KEYS, ">u8").astype(np.uint64).reshape(-1, 2) for folder in folders]
            whole = np.concatenate([none, *keys])
            if len(whole) != len(index):
                raise StageError(f"{folders[0].parent} tells of {len(whole)} documents, there are {len(index)}")
            rows = np.flatnonzero(kept)
            return equal_keys(index, "exact", rows, whole[rows, 0], whole[rows, 1])

        return judge


def exact_duplicates(index: Index, kept: np.ndarray) -> Ruling:
    """By the keys of the index."""
    import numpy as np

    rows = np.flatnonzero(kept)
    return equal_keys(index, "exact", rows, index.table["key_high"][rows], index.table["key_low"][rows])


def equal_keys(index: Index, rule: str, rows: np.ndarray, high: np.ndarray, low: np.ndarray) -> Ruling:
    """Of the rows with the same key all but the first: that of the smallest source rank, then of the smallest id."""
    import numpy as np

    table = index.table[rows]
    order = np.lexsort((table["id_low"], table["id_high"], index.rank[rows], low, high))
    high, low = high[order], low[order]
    repeated = np.zeros(len(rows), bool)
    repeated[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(rows))))  # of each one's family
    return Ruling("deduplicate", rule, "", rows[order[repeated]], index.ids(rows[order[first[repeated]]]))
