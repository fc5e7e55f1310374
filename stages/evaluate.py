"""Measures a model on held-out documents: bits per byte, perplexity, completions; against xz -9 and an n-gram model.

Bits per byte compares models with different tokenizers, and models with compressors: total -log2 p over total bytes.
All coders get the same bytes; the n-gram model has seen training text (as the model has), xz has not.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.corpus import Corpus
from stages.artifacts.evaluation import REPORT, Bits, Completion, EvalReport, EvalResults
from stages.base import Context, Demand, Resources, Runtime, Stage, StageError, Stopped

if TYPE_CHECKING:
    from stages.evaluation.ngram import NgramModel


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated of one document. `whole`: nothing was cut off, so that its end counts too."""

    source: str
    data: bytes
    whole: bool


class Evaluate(Stage):
    """A model on the validation documents of a corpus. Reads Checkpoint and Corpus, leaves EvalReport."""

    headline: ClassVar[str | None] = "bits_per_byte"

    model: Checkpoint
    corpus: Corpus
    documents_per_source: PositiveInt = 200  # those with the smallest ids
    document_bytes: PositiveInt = 100_000  # of each document, from its start
    overlap: float = Field(default=0.5, ge=0, le=0.95)  # of a window with the one before it, in contexts
    ngram_order: int = Field(default=6, ge=1, le=8)  # bytes of a gram
    ngram_train_bytes: PositiveInt = 100_000_000  # of the training documents, about: those with the smallest ids
    prompts: tuple[str, ...] = Field(default=("The ", "def ", "import "), min_length=1)
    completion_tokens: PositiveInt = 64
    temperature: PositiveFloat = 0.8  # of the sampled completions
    seed: NonNegativeInt = 0  # of the sampled completions
    threads: Runtime[PositiveInt] = 1
    gpus: Runtime[int] = Field(default=0, ge=0, le=1)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if any(not prompt for prompt in self.prompts):
            raise ValueError("prompts holds an empty prompt")
        return self

    def demand(self) -> Demand:
        return Demand(task=Resources(cpus=self.threads, gpus=self.gpus))

    def run(self, ctx: Context) -> EvalReport:
        from stages.evaluation.figures import bits_figure
        from stages.evaluation.ngram import NgramModel

        self._check_lengths()
        held_out = self._held_out()
        ngram = NgramModel(self.ngram_order, self._training_texts())
        sources = {source: _baselines(documents, ngram) for source, documents in sorted(held_out.items())}
        total = sum(sources.values(), Bits())
        total = total.model_copy(update={"xz": _one_file(held_out)})
        ctx.note(f"xz -9: {total.per_byte('xz'):.3f} bits per byte, n-gram: {total.per_byte('ngram'):.3f}")

        scores, completions = self._use_model(ctx, held_out)
        sources = {source: _scored(bits, *scores[source]) for source, bits in sources.items()}
        results = EvalResults(
            total=_scored(total, *(sum(column) for column in zip(*scores.values(), strict=True))),
            sources=sources,
            ngram_order=self.ngram_order,
            ngram_train_bytes=ngram.train_bytes,
            completions=completions,
        )
        (ctx.out / REPORT).write_text(results.model_dump_json(indent=2) + "\n")
        ctx.metrics(_metrics(results))
        ctx.figure("bits_per_byte", bits_figure(results))
        ctx.highlight("against xz -9", verdict(results.total))
        greedy = completions[0]
        ctx.highlight("completion", greedy.prompt + greedy.text)
        return EvalReport(ctx.out)

    def _check_lengths(self) -> None:
        context = self.model.config.context_length
        if self.completion_tokens >= context:
            raise StageError(f"completion_tokens is {self.completion_tokens}; the model's context has {context} tokens")

    def _held_out(self) -> dict[str, list[HeldOut]]:
        """The documents to evaluate, by source."""
        smallest: dict[str, list[tuple[str, HeldOut]]] = defaultdict(list)
        for document in self.corpus.documents("validation"):
            data = document.text.encode()
            kept = data[: self.document_bytes].decode(errors="ignore").encode()  # whole characters only
            chosen = smallest[document.source]
            insort(chosen, (document.id, HeldOut(document.source, kept, whole=len(kept) == len(data))), key=_by_id)
            del chosen[self.documents_per_source :]
        found = {source: [document for _, document in chosen] for source, chosen in smallest.items()}
        if not any(document.data for documents in found.values() for document in documents):
            raise StageError("the corpus has no validation document to evaluate")
        return found

    def _training_texts(self) -> Iterator[bytes]:
        """Training texts of all shards alike, about as many bytes as are wanted."""
        size = self.corpus.manifest.size("train").bytes
        for document in self.corpus.documents("train", fraction=self.ngram_train_bytes / size):
            yield document.text.encode()

    def _use_model(
        self, ctx: Context, held_out: Mapping[str, list[HeldOut]]
    ) -> tuple[dict[str, tuple[int, float]], tuple[Completion, ...]]:
        """Tokens and bits of each source, and the completions: a greedy one of each prompt, then the sampled ones."""
        import torch

        from stages.evaluation.completions import complete
        from stages.evaluation.likelihood import document_nats

        torch.set_num_threads(self.threads)
        model = self.model.load(device="cuda" if self.gpus else "cpu")
        tokenizer = self.model.tokenizer()

        def progress(done: int, windows: int) -> None:
            if ctx.stopping():
                raise Stopped
            ctx.progress(done, windows, "windows")

        documents = [document for group in held_out.values() for document in group]
        end = model.config.eos_token_id
        texts = [document.data.decode() for document in documents]
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        tokens = [ids + [end] * document.whole for ids, document in zip(encoded, documents, strict=True)]
        overlap = int(self.overlap * model.config.context_length)
        nats = document_nats(model, tokens, begin=end, overlap=overlap, progress=progress)
        scores = dict.fromkeys(held_out, (0, 0.0))
        for document, ids, loss in zip(documents, tokens, nats, strict=True):
            count, bits = scores[document.source]
            scores[document.source] = (count + len(ids), bits + float(loss) / math.log(2))

        completions = tuple(
            complete(
                model, tokenizer, prompt, max_tokens=self.completion_tokens, temperature=temperature, seed=self.seed
            )
            for temperature in (0.0, self.temperature)
            for prompt in self.prompts
        )
        return scores, completions


def verdict(total: Bits) -> str:
    """A sentence for people: whether the model beats xz -9 on the same bytes, and by how much."""
    model, xz = total.per_byte("model"), total.per_byte("xz")
    relation = "beats" if model < xz else "loses to"
    return (
        f"On {total.bytes / 1e3:,.0f} kB of held-out text in {total.documents} documents the model {relation} xz -9 by "
        f"{abs(model / xz - 1):.1%}: {model:.3f} bits per byte against {xz:.3f} for one file of all documents "
        f"({total.per_byte('xz_per_document'):.3f} with each document compressed on its own, as the model sees them; "
        f"n-gram model: {total.per_byte('ngram'):.3f})."
    )


def _by_id(entry: tuple[str, HeldOut]) -> str:
    return entry[0]


def _baselines(documents: list[HeldOut], ngram: NgramModel) -> Bits:
    from stages.evaluation.compression import xz_bits

    return Bits(
        documents=len(documents),
        bytes=sum(len(document.data) for document in documents),
        ngram=sum(ngram.document_bits(document.data, document.whole) for document in documents),
        xz=xz_bits(b"".join(document.data for document in documents)),
        xz_per_document=sum(xz_bits(document.data) for document in documents),
    )


def _one_file(held_out: Mapping[str, list[HeldOut]]) -> int:
    from stages.evaluation.compression import xz_bits

    return xz_bits(b"".join(document.data for source in sorted(held_out) for document in held_out[source]))


def _scored(bits: Bits, tokens: float, model_bits: float) -> Bits:
    if not math.isfinite(model_bits):
        raise StageError("the model gives held-out text no probability (a loss is not finite): train it anew")
    return bits.model_copy(update={"tokens": int(tokens), "model": model_bits})


def _metrics(results: EvalResults) -> dict[str, float]:
    total = results.total
    by_source = {
        f"{source.replace(' ', '_')}_bits_per_byte": bits.per_byte("model") for source, bits in results.sources.items()
    }
    return {
        "perplexity": total.perplexity,
        "bits_per_byte": total.per_byte("model"),
        "xz_bits_per_byte": total.per_byte("xz"),
        "xz_per_document_bits_per_byte": total.per_byte("xz_per_document"),
        "ngram_bits_per_byte": total.per_byte("ngram"),
        "evaluated_kilobytes": total.bytes / 1e3,
        **by_source,
    }
