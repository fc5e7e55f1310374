"""Word vectors of one language: read from a file, trained on a text or a corpus, or taken from a language model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.corpus import Corpus
from stages.base import Config, Context, Stage, StageError, Stopped
from stages.word_alignment.texts import WORD, Text
from stages.word_alignment.vector_file import VectorFile
from stages.word_alignment.vectors import VectorFacts, WordVectors, write

if TYPE_CHECKING:
    from stages.word_alignment.linear import Array


class Training(Config):
    """Which words of a text get vectors, and how these are trained.

    pages      PPMI of the words that share a page, then a truncated SVD
    skip_gram  skip-gram with negative sampling, by gensim: for long texts
    """

    vocabulary: PositiveInt = 2500  # the most frequent words
    dimensions: int = Field(default=100, ge=2, le=2000)
    min_pages: PositiveInt = 3  # that a word must be on
    method: Literal["pages", "skip_gram"] = "pages"
    epochs: PositiveInt = 5  # of skip_gram
    seed: NonNegativeInt = 0  # of skip_gram


class MakeWordVectors(Stage):
    """Reads word vectors from `path`, or trains them on `text` or `corpus`, whose words may get their vectors from
    `checkpoint` instead. `path` or `corpus` replaces `text`; with `path`, `training` has no effect either."""

    headline: ClassVar[str | None] = "words"
    spawns: ClassVar[bool] = False

    language: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")  # its name in requests, figures and tables
    path: VectorFile | None = None
    text: Text | None = None
    corpus: Corpus | None = None  # its training documents are the pages
    corpus_language: str | None = None  # use the documents that have this language only; null: all documents
    checkpoint: Checkpoint | None = None  # the mean of its input embeddings over a word's tokens is the word's vector
    training: Training = Training()
    max_words: PositiveInt = 200_000  # of a file, its first ones

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        replaced = set()
        if values.get("corpus") is not None:
            replaced = {"text"}
        if values.get("path") is not None:
            replaced = {"text", "training"}
        return {name: value for name, value in values.items() if name not in replaced}

    @model_validator(mode="after")
    def _origins_fit(self) -> Self:
        if self.path is not None and (self.corpus is not None or self.checkpoint is not None):
            raise ValueError("path: vectors of a file need neither corpus nor checkpoint; leave these out")
        if self.corpus_language is not None and self.corpus is None:
            raise ValueError("corpus_language: there is no corpus whose documents it could select")
        return self

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
        if self.text is None and self.corpus is None:
            raise StageError(
                "nothing to make word vectors of: set `path` to a file of vectors, or `text` or `corpus` to train on"
            )
        words, vectors = self._trained(ctx) if self.checkpoint is None else self._embedded(ctx, self.checkpoint)
        facts = VectorFacts(
            language=self.language,
            words=len(words),
            dimensions=vectors.shape[1],
            origin="text" if self.checkpoint is None else "checkpoint",
            substituted=self.text is not None and self.text.substitute,
        )
        if facts.substituted:
            ctx.note(f"{self.language} is a planted language: every word of its text was replaced by another")
        return words, vectors, facts

    def _trained(self, ctx: Context) -> tuple[list[str], Array]:
        from stages.word_alignment import page_vectors, skip_gram

        training = self.training
        size = training.vocabulary, training.dimensions, training.min_pages
        if training.method == "pages":
            return page_vectors.train(self._pages(ctx), *size)
        return skip_gram.train(lambda: self._pages(ctx), *size, epochs=training.epochs, seed=training.seed)

    def _embedded(self, ctx: Context, checkpoint: Checkpoint) -> tuple[list[str], Array]:
        from stages.word_alignment.checkpoint_vectors import word_vectors
        from stages.word_alignment.page_vectors import frequent_words

        words = frequent_words(self._pages(ctx), self.training.vocabulary, self.training.min_pages)
        if not words:
            raise StageError(f"the text has no word that is on {self.training.min_pages} pages or more")
        return words, word_vectors(checkpoint, words)

    def _pages(self, ctx: Context) -> Iterator[list[str]]:
        """The words of each page of the text, or of each training document of the corpus."""
        for number, page in enumerate(self.text.pages() if self.text is not None else self._documents()):
            if number % 256 == 0 and ctx.stopping():
                raise Stopped
            yield page

    def _documents(self) -> Iterator[list[str]]:
        assert self.corpus is not None
        found = False
        for document in self.corpus.documents("train"):
            if self.corpus_language in (None, document.language):
                found = True
                yield WORD.findall(document.text.lower())
        if not found:
            languages = sorted({cell.language or "(none)" for cell in self.corpus.manifest.cells})
            raise StageError(
                f"no training document of the corpus has the language {self.corpus_language!r}; it has: "
                f"{', '.join(languages)}"
            )
