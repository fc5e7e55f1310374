"""Trains an n-gram language model on a corpus, for the operation `perplexity`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from stages.artifacts.corpus import Corpus
from stages.artifacts.manifest import Split
from stages.base import Context, Stage, StageError, Stopped
from stages.corpus.languages import canonical_code
from stages.corpus.ngram_model import FACTS, PERCENTILES, TABLES, NgramFacts, NgramModel


class TrainNgram(Stage):
    """Trains an n-gram model on a corpus and measures it on the validation documents."""

    headline: ClassVar[str | None] = "held_out_perplexity"
    spawns: ClassVar[bool] = False

    corpus: Corpus
    order: Annotated[int, Field(ge=1, le=8)] = 5  # bytes in a gram
    table_bits: Annotated[int, Field(ge=8, le=26)] = 21  # 2^21 cells: 126 MB at order 5
    languages: tuple[str, ...] = ()  # codes of the languages to train on; empty: all
    limit_bytes: PositiveInt = 100_000_000  # of training text

    def run(self, ctx: Context) -> NgramModel:
        import numpy as np
        from safetensors.numpy import save_file

        from stages.artifacts.byte_ngrams import HashedCounts
        from stages.corpus.statistics.word_perplexity import word_perplexity

        counts = HashedCounts(self.order, self.table_bits)
        size = documents = 0
        for text in self._texts("train"):
            if documents % 64 == 0:
                if ctx.stopping():
                    raise Stopped
                ctx.progress(size, self.limit_bytes, "bytes", documents=documents)
            size += counts.add([text.encode()[: self.limit_bytes - size]])
            documents += 1
            if size >= self.limit_bytes:
                break
        measured = [word_perplexity(counts, text) for text in self._texts("validation")]
        if not size or not measured:
            missing = "training" if not size else "validation"
            wanted = f" in {', '.join(self.languages)}" if self.languages else ""
            raise StageError(
                f"the corpus has no {missing} documents{wanted}, and ngram trains on one split and measures its "
                "percentiles on the other: set validation_fraction of the corpus above 0, change languages, or add "
                "documents"
            )
        values = np.percentile(measured, np.linspace(0, 100, PERCENTILES))
        facts = NgramFacts(
            order=self.order,
            table_bits=self.table_bits,
            languages=self.languages,
            documents=documents,
            train_bytes=size,
            held_out_documents=len(measured),
            percentiles=tuple(np.maximum.accumulate(values).tolist()),
        )
        save_file(counts.tables, ctx.out / TABLES)
        (ctx.out / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
        fullness = float((counts.tables["counts"][-1] > 0).mean())
        ctx.metrics({"held_out_perplexity": facts.percentiles[50], "train_megabytes": size / 1e6, "fullness": fullness})
        if fullness > 0.25:
            ctx.note(
                f"the tables are {fullness:.0%} full, so grams share cells: raise table_bits above {self.table_bits}"
            )
        return NgramModel(ctx.out)

    def _texts(self, split: Split) -> Iterator[str]:
        for document in self.corpus.documents(split):
            if not self.languages or canonical_code(document.language) in self.languages:
                yield document.text
