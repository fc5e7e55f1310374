"""The artifact of word vectors.

vectors.safetensors   `vectors` [words, dimensions] in float32, as they were read or trained
vectors.words.txt     the words, one a line, the most frequent first
facts.json            where they come from
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt

from stages.base import Artifact, ArtifactError, Config, StageError
from stages.json_files import read_json

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array

VECTORS, WORDS, FACTS = "vectors.safetensors", "vectors.words.txt", "facts.json"
FACTS_LIMIT_BYTES = 1 << 20


class VectorFacts(Config):
    """What is known of word vectors apart from their values."""

    language: str
    words: PositiveInt
    dimensions: PositiveInt
    origin: Literal["file", "text", "checkpoint"]
    substituted: bool = False  # the words stand for others by `texts.substituted`: a planted language
    duplicates: NonNegativeInt = 0  # rows of the file that were skipped because their word was there already
    nameless: NonNegativeInt = 0  # rows of the file that were skipped because they had no word


@dataclass(frozen=True)
class WordVectors(Artifact):
    """Words and their vectors in one language."""

    @property
    def facts(self) -> VectorFacts:
        return read_json(self.path / FACTS, VectorFacts, "a description of word vectors", FACTS_LIMIT_BYTES)

    def load(self, words: int | None = None) -> tuple[list[str], Array]:
        """The words and their vectors [words, dimensions] in float32; only the first `words` of them if given."""
        from stages.word_alignment.read_vectors import read

        facts = self.facts
        count = facts.words if words is None else min(words, facts.words)
        try:
            loaded = read(self.path / VECTORS, count)
        except StageError as error:
            raise ArtifactError(str(error)) from None
        if loaded.vectors.shape != (count, facts.dimensions):
            raise ArtifactError(f"{self.path / VECTORS}: expected {facts.words} distinct words as {FACTS} says")
        return loaded.words, loaded.vectors

    def check(self) -> None:
        self.load()

    def describe(self) -> Mapping[str, object]:
        return self.facts.model_dump()


def write(path: Path, words: Sequence[str], vectors: Array, facts: VectorFacts) -> WordVectors:
    """Write the artifact into the directory `path`."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"vectors": np.ascontiguousarray(vectors, np.float32)}, path / VECTORS)
    (path / WORDS).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (path / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
    return WordVectors(path)
