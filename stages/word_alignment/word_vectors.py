"""Word vectors of one language, read from a file or trained on a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from stages.base import Config, Context, Stage, StageError, Stopped
from stages.word_alignment.texts import Text
from stages.word_alignment.vector_file import VectorFile
from stages.word_alignment.vectors import VectorFacts, WordVectors, write

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array


class Training(Config):
    """How word vectors are trained on a text: PPMI of the words that share a page, then a truncated SVD."""

    vocabulary: PositiveInt = 2500  # the most frequent words
    dimensions: int = Field(default=100, ge=2, le=2000)
    min_pages: PositiveInt = 3  # that a word must be on


class MakeWordVectors(Stage):
    """Reads word vectors from `path`, or trains them on `text`. With `path`, `text` and `training` have no effect."""

    headline: ClassVar[str | None] = "words"

    language: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")  # its name in requests, figures and tables
    path: VectorFile | None = None
    text: Text | None = None
    training: Training = Training()
    max_words: PositiveInt = 200_000  # of a file, its first ones

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("path") is not None:
            return {name: value for name, value in values.items() if name not in ("text", "training")}
        return values

    def run(self, ctx: Context) -> WordVectors:
        words, vectors, facts = self._from_file(ctx) if self.path else self._from_text(ctx)
        ctx.metrics({"words": facts.words, "dimensions": facts.dimensions})
        return write(ctx.out, words, vectors, facts)

    def _from_file(self, ctx: Context) -> tuple[list[str], Array, VectorFacts]:
        from stages.word_alignment.read_vectors import read

        assert self.path is not None
        loaded = read(self.path.path, self.max_words)
        if loaded.duplicates or loaded.nameless:
            ctx.note(f"skipped {loaded.duplicates} rows of repeated words and {loaded.nameless} rows without a word")
        facts = VectorFacts(
            language=self.language,
            words=len(loaded.words),
            dimensions=loaded.vectors.shape[1],
            origin="file",
            duplicates=loaded.duplicates,
            nameless=loaded.nameless,
        )
        return loaded.words, loaded.vectors, facts

    def _from_text(self, ctx: Context) -> tuple[list[str], Array, VectorFacts]:
        from stages.word_alignment.page_vectors import train

        if self.text is None:
            raise StageError(
                "nothing to make word vectors of: set `path` to a file of vectors, or `text` to a text to train on"
            )
        training = self.training
        words, vectors = train(self._pages(ctx), training.vocabulary, training.dimensions, training.min_pages)
        facts = VectorFacts(
            language=self.language,
            words=len(words),
            dimensions=vectors.shape[1],
            origin="text",
            substituted=self.text.substitute,
        )
        if self.text.substitute:
            ctx.note(f"{self.language} is a planted language: every word of its text was replaced by another")
        return words, vectors, facts

    def _pages(self, ctx: Context) -> Iterator[list[str]]:
        assert self.text is not None
        for number, page in enumerate(self.text.pages()):
            if number % 256 == 0 and ctx.stopping():
                raise Stopped
            yield page
