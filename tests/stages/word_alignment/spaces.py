"""Word spaces whose alignment is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.word_alignment.linear import Array, normalised, orthogonal
from stages.word_alignment.vectors import VectorFacts, WordVectors, write


def cloud(words: int, dimensions: int, seed: int = 0) -> Array:
    """Normalised vectors of clusters of several sizes, with a spectrum that decays, as word vectors have."""
    generator = np.random.default_rng(seed)
    scales = 1 / np.sqrt(np.arange(1, dimensions + 1))
    centres = generator.standard_normal((max(2, words // 20), dimensions)) ** 3
    members = generator.choice(len(centres), words, p=_decaying(len(centres)))
    return normalised((centres[members] + generator.standard_normal((words, dimensions))) * scales)


def rotation(dimensions: int, seed: int = 0) -> Array:
    return orthogonal(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))


def planted(words: int, dimensions: int, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """(source, target, W, places): the target's row `places[i]` is the source's row i times W, plus noise."""
    generator = np.random.default_rng([seed, 1])
    source, mapping = cloud(words, dimensions, seed), rotation(dimensions, seed + 1)
    order = generator.permutation(words)
    noisy = source @ mapping + noise * generator.standard_normal(source.shape) / np.sqrt(dimensions)
    target = noisy[order]
    return source, normalised(target) if noise else target, mapping, np.argsort(order)


def artifact(path: Path, vectors: Array, language: str, prefix: str) -> WordVectors:
    """Word vectors whose words are the prefix and a number."""
    path.mkdir(parents=True)
    facts = VectorFacts(language=language, words=len(vectors), dimensions=vectors.shape[1], origin="file")
    return write(path, [f"{prefix}{number}" for number in range(len(vectors))], vectors, facts)


def _decaying(count: int) -> Array:
    weights = 1 / np.arange(1, count + 1)
    return np.asarray(weights / weights.sum())
