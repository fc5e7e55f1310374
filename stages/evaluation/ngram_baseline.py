"""The n-gram baseline of an evaluation: a byte n-gram model that was counted on the training text.

Documents end with a NUL byte, which no text of a corpus contains, so that the end of a document costs bits in the
baseline as it does in the language model.
"""

from __future__ import annotations

from collections.abc import Iterable

from stages.artifacts.byte_ngrams import ExactCounts, bits

END = b"\0"


class NgramBaseline:
    """Exact counts of the grams of 1 to `order` bytes (at most 8) of the training documents."""

    def __init__(self, order: int, documents: Iterable[bytes]) -> None:
        self._counts = ExactCounts(order, (document + END for document in documents))

    @property
    def train_bytes(self) -> int:
        """Bytes that were counted, with one for the end of each document."""
        return self._counts.train_bytes

    def document_bits(self, document: bytes, whole: bool = True) -> float:
        """-log2 p of a document on its own. `whole`: the end of the document counts as well."""
        return bits(self._counts, document + END if whole else document)
