"""Trains a quality classifier for the operation `quality`: a linear model that separates good documents from others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.artifacts.manifest import Split
from stages.base import Context, Stage, StageError, Stopped
from stages.corpus.languages import canonical_code
from stages.corpus.quality_model import FACTS, PERCENTILES, WEIGHTS, QualityFacts, QualityModel, score_of

if TYPE_CHECKING:
    import numpy as np

GROUP = 64  # texts whose features are computed at a time


class TrainQuality(Stage):
    """Trains a linear model of words on good documents and on others, and measures it on validation documents."""

    headline: ClassVar[str | None] = "held_out_accuracy"
    spawns: ClassVar[bool] = False

    good: Corpus  # what text should be like: curated, edited, referenced
    other: Corpus  # what is to be scored: an unfiltered sample of the crawl
    table_bits: Annotated[int, Field(ge=8, le=26)] = 20  # 2^20 weights: 4 MB
    languages: tuple[str, ...] = ()  # codes of the languages to train on; empty: all
    documents: PositiveInt = 50_000  # of each corpus, at most
    epochs: PositiveInt = 5
    learning_rate: PositiveFloat = 1.0  # of AdaGrad
    seed: NonNegativeInt = 0  # of the order of documents

    def run(self, ctx: Context) -> QualityModel:
        import numpy as np
        from safetensors.numpy import save_file

        train = [self._features(corpus, "train") for corpus in (self.good, self.other)]
        held_out = [self._features(corpus, "validation") for corpus in (self.good, self.other)]
        for name, documents in zip(("good", "other", "good", "other"), (*train, *held_out), strict=True):
            if not documents:
                kind = "training" if documents in train else "validation"
                wanted = f" in {', '.join(self.languages)}" if self.languages else ""
                raise StageError(f"{name} has no {kind} documents{wanted}: change languages, or add documents")
        weights, bias = self._train(ctx, train)
        good, other = (np.array([score_of(cells, weights, bias) for cells in documents]) for documents in held_out)
        facts = QualityFacts(
            table_bits=self.table_bits,
            good_documents=len(train[0]),
            other_documents=len(train[1]),
            accuracy=float(((good >= 0.5).mean() + (other < 0.5).mean()) / 2),
            percentiles=tuple(np.maximum.accumulate(np.percentile(good, np.linspace(0, 100, PERCENTILES))).tolist()),
        )
        save_file({"weights": weights, "bias": np.array([bias], np.float32)}, ctx.out / WEIGHTS)
        (ctx.out / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
        ctx.metrics({"held_out_accuracy": facts.accuracy, "good_documents": len(train[0])})
        if facts.accuracy < 0.6:
            ctx.note(
                f"the model hardly separates the two corpora: its accuracy is {facts.accuracy:.0%} of held-out text"
            )
        return QualityModel(ctx.out)

    def _train(self, ctx: Context, corpora: list[list[np.ndarray]]) -> tuple[np.ndarray, float]:
        """Logistic regression by AdaGrad, one document after the other. Both corpora have the same weight."""
        import numpy as np

        documents = [cells for corpus in corpora for cells in corpus]
        count = len(documents)
        targets = np.repeat([1.0, 0.0], [len(corpus) for corpus in corpora])
        shares = np.repeat([count / (2 * len(corpus)) for corpus in corpora], [len(corpus) for corpus in corpora])
        weights = np.zeros(1 << self.table_bits, np.float32)
        squares = np.full(1 << self.table_bits, 1e-8, np.float32)
        bias, bias_square = 0.0, 1e-8
        draw = np.random.default_rng(self.seed)
        for epoch in range(self.epochs):
            for done, place in enumerate(draw.permutation(count).tolist()):
                if done % 1000 == 0:
                    if ctx.stopping():
                        raise Stopped
                    ctx.progress(epoch * count + done, self.epochs * count, "documents")
                cells, times = np.unique(documents[place], return_counts=True)
                error = (score_of(documents[place], weights, np.float64(bias)) - targets[place]) * shares[place]
                gradient = (error / max(len(documents[place]), 1) * times).astype(np.float32)
                squares[cells] += gradient * gradient
                weights[cells] -= np.float32(self.learning_rate) * gradient / np.sqrt(squares[cells])
                bias_square += error * error
                bias -= self.learning_rate * error / bias_square**0.5
        return weights, float(np.float32(bias))

    def _features(self, corpus: Corpus, split: Split) -> list[np.ndarray]:
        """The features of a uniform sample of the documents of a split, at most `documents`."""
        from stages.corpus.statistics.word_features import word_features

        size = corpus.manifest.size(split).documents
        fraction = self.documents / size if size > self.documents else 1.0
        found: list[np.ndarray] = []
        group: list[str] = []
        for text in self._texts(corpus, split, fraction):
            group.append(text)
            if len(group) == GROUP:
                found += word_features(group, self.table_bits)
                group = []
        return found + word_features(group, self.table_bits)

    def _texts(self, corpus: Corpus, split: Split, fraction: float) -> Iterator[str]:
        for document in corpus.documents(split, fraction=fraction):
            if not self.languages or canonical_code(document.language) in self.languages:
                yield document.text
