"""Normalisation of word vectors, and the orthogonal map between two sets of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def unit(vectors: Array) -> Array:
    """The rows of `vectors` [n, d] scaled to length 1. A row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def normalised(vectors: Array) -> Array:
    """Rows [n, d] scaled to length 1, centred, and scaled again (Artetxe et al. 2018, arXiv 1805.06297)."""
    rows = unit(vectors)
    return unit(rows - rows.mean(axis=0, keepdims=True))


def orthogonal(matrix: Array) -> Array:
    """The orthogonal matrix nearest to `matrix` [d, d] in the Frobenius norm, in float64: U V^T of its SVD."""
    left, _, right = np.linalg.svd(np.asarray(matrix, np.float64))
    return np.asarray(left @ right)


def procrustes(source: Array, target: Array) -> Array:
    """The orthogonal W [d, d] that minimises |source W - target|_F for paired rows [n, d] (Schönemann 1966)."""
    return orthogonal(source.T.astype(np.float64) @ target)


def mapped(vectors: Array, mapping: Array) -> Array:
    """Rows [n, d] times W [d, d], scaled to length 1, in the type of the rows."""
    return unit(vectors @ mapping.astype(vectors.dtype))
