"""Chooses the validation documents by the hash of their text, so that a document stays in its split.

Where languages are measured one by one, a small language gets more validation documents than the fraction gives: those
with the smallest hashes. Cutting may leave too little of a document, so documents that are certain to stay are taken
first. A text is never in both splits, whatever the language labels of its copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import Config
from stages.corpus.ingestion.document_index import DocumentIndex
from stages.corpus.ingestion.drafts import Drafts, Measure

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LABELS = "labels.bin"  # uint32 per draft: the position of its language in the facts of the shard

# Given the index, which rows are kept (bool) and the bytes cut out of each (int64): which rows are validation (bool).
ChooseValidation = Callable[[DocumentIndex, "np.ndarray", "np.ndarray"], "np.ndarray"]


class ValidationSplit(Config):
    """The size of the validation split: a fraction of documents, and for each language a number if that is more."""

    fraction: float
    documents_per_language: int = 0
    enough_bytes: int = 0  # a text that was cut and still has this many bytes is not too short
    share_per_language: float = 0.0  # the largest share of a language that is taken to reach the number

    def chooser(self, drafts: Drafts) -> ChooseValidation:
        """The function that chooses; measures the languages of the drafts if it needs them."""
        if not self.documents_per_language:
            return lambda index, kept, cut_bytes: _below(index, self.fraction)
        folders, facts = drafts.measured("languages", LanguageLabels())

        def choose(index: DocumentIndex, kept: np.ndarray, cut_bytes: np.ndarray) -> np.ndarray:
            import numpy as np

            left = index.table["size"].astype(np.int64) - cut_bytes
            uncertain = ((cut_bytes > 0) & (left < self.enough_bytes))[kept]
            labels, keys = _labels(folders, facts)[kept], index.table["key_low"][kept]
            order = np.lexsort((keys, uncertain, labels))
            firsts = np.flatnonzero(np.diff(labels[order])) + 1
            more = np.concatenate([self._first(of_language) for of_language in np.split(keys[order], firsts)])
            chosen: np.ndarray = _below(index, self.fraction) | np.isin(index.table["key_low"], more)
            return chosen

        return choose

    def _first(self, keys: np.ndarray) -> np.ndarray:
        """The validation keys of a language, given its keys in the order of choice. Equal keys go together."""
        count = min(self.documents_per_language, int(self.share_per_language * len(keys)))
        while 0 < count < len(keys) and keys[count] == keys[count - 1]:
            count -= 1
        return keys[:count]


class LanguageLabels(Measure):
    """The language of every draft, as the manifest counts it."""

    def measure(self, drafts: Iterator[pa.RecordBatch], folder: Path) -> Mapping[str, Any]:
        import numpy as np

        positions: dict[str, int] = {}
        with (folder / LABELS).open("wb") as file:
            for batch in drafts:
                found = [positions.setdefault(language, len(positions)) for language in batch["language"].to_pylist()]
                np.array(found, np.uint32).tofile(file)
        return {"languages": list(positions)}


def _labels(folders: list[Path], facts: list[Mapping[str, Any]]) -> np.ndarray:
    """A number for the language of every row (int64), the same in all shards."""
    import numpy as np

    numbers: dict[str, int] = {}
    tables = [np.empty(0, np.int64)]
    for folder, of_shard in zip(folders, facts, strict=True):
        languages = of_shard["languages"]
        of_label = np.array([numbers.setdefault(language, len(numbers)) for language in languages], np.int64)
        tables.append(of_label[np.fromfile(folder / LABELS, np.uint32)])
    return np.concatenate(tables)


def _below(index: DocumentIndex, fraction: float) -> np.ndarray:
    import numpy as np

    chosen: np.ndarray = index.table["key_low"] < np.uint64(int(fraction * 2.0**64))
    return chosen
