"""Which documents are for validation: by the hash of the text, so that a document stays where it is.

Where languages are to be measured one by one, a small one gets more of its documents than the fraction would give it:
those with the smallest hashes. What rules cut out may leave too little of a document, so those that are sure to stay
come first. A text is never in both splits, whatever languages its copies are labelled with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import Config
from stages.corpus.ingestion.document_index import Index
from stages.corpus.ingestion.drafts import Drafts, Measure

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LABELS = "labels.bin"  # uint32 a draft: the place of its language in the facts of the shard

# Of the index, of which rows are kept (bool), and of how many bytes are cut out of each (int64): which are validation.
Split = Callable[[Index, "np.ndarray", "np.ndarray"], "np.ndarray"]


class Validation(Config):
    """How much is for validation: a fraction of documents, and for each language a number of them if that is more."""

    fraction: float
    documents_per_language: int = 0
    enough_bytes: int = 0  # of a text that was cut: with so many it is not too short
    share_per_language: float = 0.0  # a language gives no more of its documents than this for the sake of the number

    def split(self, drafts: Drafts) -> Split:
        """Ready to decide."""
        if not self.documents_per_language:
            return lambda index, kept, cut: _below(index, self.fraction)
        folders, facts = drafts.measured("languages", Labels())

        def split(index: Index, kept: np.ndarray, cut: np.ndarray) -> np.ndarray:
            import numpy as np

            left = index.table["size"].astype(np.int64) - cut
            unsure = ((cut > 0) & (left < self.enough_bytes))[kept]
            labels, keys = _labels(folders, facts)[kept], index.table["key_low"][kept]
            order = np.lexsort((keys, unsure, labels))
            firsts = np.flatnonzero(np.diff(labels[order])) + 1
            more = np.concatenate([self._first(of_language) for of_language in np.split(keys[order], firsts)])
            chosen: np.ndarray = _below(index, self.fraction) | np.isin(index.table["key_low"], more)
            return chosen

        return split

    def _first(self, keys: np.ndarray) -> np.ndarray:
        """Of a language's keys, those to be taken first in front, those that are for validation; all of the same key
        or none."""
        count = min(self.documents_per_language, int(self.share_per_language * len(keys)))
        while 0 < count < len(keys) and keys[count] == keys[count - 1]:
            count -= 1
        return keys[:count]


class Labels(Measure):
    """The language of every draft, as the manifest's cells have it."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        places: dict[str, int] = {}
        with (folder / LABELS).open("wb") as file:
            for batch in drafts:
                found = [places.setdefault(language, len(places)) for language in batch["language"].to_pylist()]
                np.array(found, np.uint32).tofile(file)
        return {"languages": list(places)}


def _labels(folders: list[Path], facts: list[Mapping[str, Any]]) -> np.ndarray:
    """A number for the language of every row (int64), the same in all shards."""
    import numpy as np

    places: dict[str, int] = {}
    tables = [np.empty(0, np.int64)]
    for folder, told in zip(folders, facts, strict=True):
        here = np.array([places.setdefault(language, len(places)) for language in told["languages"]], np.int64)
        tables.append(here[np.fromfile(folder / LABELS, np.uint32)])
    return np.concatenate(tables)


def _below(index: Index, fraction: float) -> np.ndarray:
    import numpy as np

    chosen: np.ndarray = index.table["key_low"] < np.uint64(int(fraction * 2.0**64))
    return chosen
