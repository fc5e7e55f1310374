"""Exact duplicates: texts that are equal but for their white space, by the hash of what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.corpus.index import Index, Ruling

if TYPE_CHECKING:
    import numpy as np


def exact_duplicates(index: Index, kept: np.ndarray) -> Ruling:
    """Of documents with the same key all but the first: that of the smallest source rank, then of the smallest id."""
    import numpy as np

    rows = np.flatnonzero(kept)
    table = index.table[rows]
    order = np.lexsort((table["id_low"], table["id_high"], index.rank[rows], table["key_low"], table["key_high"]))
    high, low = table["key_high"][order], table["key_low"][order]
    repeated = np.zeros(len(rows), bool)
    repeated[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(rows))))  # of each one's family
    return Ruling("deduplicate", "exact", "", rows[order[repeated]], index.ids(rows[order[first[repeated]]]))
