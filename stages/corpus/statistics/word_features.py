"""Features of texts for a linear model: hashes of their words and pairs of words, as in fastText (arXiv 1607.01759).

Words are those of `shingles`, so that scripts without spaces between words are covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.corpus.statistics.shingles import shingles

if TYPE_CHECKING:
    import numpy as np

RUNS = (1, 2)  # words
CHARACTERS = 100_000  # of a text that count


def word_features(texts: Sequence[str], table_bits: int) -> list[np.ndarray]:
    """For each text, the cells of a table of 2**`table_bits` that its words and pairs of words have (int64)."""
    import numpy as np

    shortened = [text[:CHARACTERS] for text in texts]
    found = [shingles(shortened, length) for length in RUNS]
    shift = np.uint64(64 - table_bits)
    cells = [(one.hashes >> shift).astype(np.int64) for one in found]
    return [
        np.concatenate(
            [cell[one.starts[place] : one.starts[place + 1]] for one, cell in zip(found, cells, strict=True)]
        )
        for place in range(len(texts))
    ]
