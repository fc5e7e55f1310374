"""Measures a model on held-out documents: bits per byte, perplexity and completions, compared to xz -9 and an n-gram.

Bits per byte, total -log2 p over total bytes, compares models with different tokenizers, and models with compressors.
All of them get the same bytes. The n-gram model has seen training text, as the model has; xz has not.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.artifacts.checkpoint import Checkpoint, known_config
from stages.artifacts.corpus import Corpus, first_words
from stages.artifacts.document_start import document_start
from stages.artifacts.encoding import encode_batch
from stages.artifacts.evaluation_report import REPORT, Bits, Completion, EvalReport, EvalResults, EvaluationForecast
from stages.base import VERDICT, Context, Demand, Edge, Resources, Runtime, Stage, StageError, Stopped
from stages.model.footprint import BATCH_TOKENS, RUNTIME_BYTES, forward_bytes, weight_bytes

if TYPE_CHECKING:
    from stages.evaluation.ngram_baseline import NgramBaseline


PROMPTS = 3  # held-out documents whose first words are completed
ENOUGH_BYTES = 100_000  # of held-out text; a comparison on less is uncertain


@dataclass(frozen=True)
class HeldOut:
    """The evaluated part of one document. `whole`: nothing was cut off, so the end of the text is scored as well."""

    id: str
    source: str
    language: str  # "" if the document has no label
    data: bytes
    whole: bool


class Evaluate(Stage):
    """Evaluates a model on the validation documents of a corpus."""

    headline: ClassVar[str | None] = "bits_per_byte"
    version: ClassVar[str] = "3"  # 3: documents begin as in training
    spawns: ClassVar[bool] = False

    model: Checkpoint  # the model to evaluate
    corpus: Corpus  # its validation documents are scored; its training documents train the n-gram model
    documents_per_source: PositiveInt = 200  # number of documents of each source: those with the smallest ids
    documents_per_language: NonNegativeInt = 0  # at least this number of documents of each language, if it has them
    document_bytes: PositiveInt = 100_000  # bytes scored of each document, from its start
    overlap: float = Field(
        default=0.5, ge=0, le=0.95
    )  # overlap of two successive windows, as a fraction of the context
    ngram_order: int = Field(default=6, ge=1, le=8)  # bytes of the longest gram of the n-gram model
    ngram_train_bytes: PositiveInt = 100_000_000  # text that trains the n-gram model, approximately
    # Each is completed greedily and by sampling; [] stands for the first words of held-out documents.
    prompts: tuple[str, ...] = ("The ", "def ", "import ")
    completion_tokens: PositiveInt = 64  # length of a completion
    temperature: PositiveFloat = 0.8  # temperature of the sampled completions
    seed: NonNegativeInt = 0  # seed of the sampled completions
    threads: Runtime[PositiveInt] = 1  # CPU threads of the model
    gpus: Runtime[int] = Field(default=0, ge=0, le=1)  # 1: the model runs on a GPU

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if any(not prompt for prompt in self.prompts):
            raise ValueError("prompts contains an empty prompt")
        return self

    def demand(self) -> Demand:
        config, needed = known_config(self.model), 0
        if config is not None:
            length = config.context_length
            computing = forward_bytes(config, max(1, BATCH_TOKENS // length), length)
            needed = RUNTIME_BYTES + weight_bytes(config) + computing
        return Demand(task=Resources(cpus=self.threads, gpus=self.gpus, memory_bytes=needed))

    def forecast(self) -> EvaluationForecast | None:
        model = cast("object", self.model)
        return EvaluationForecast(model_step=model.step) if isinstance(model, Edge) else None

    def run(self, ctx: Context) -> EvalReport:
        from stages.evaluation.figures import bits_figure, languages_figure
        from stages.evaluation.ngram_baseline import NgramBaseline

        self._check_lengths()
        held_out = self._held_out()
        ngram = NgramBaseline(self.ngram_order, self._training_texts())
        baselines = [_baselines(document, ngram) for document in held_out]
        total = _together(held_out, baselines)
        ctx.note(f"xz -9: {total.per_byte('xz'):.3f} bits per byte, n-gram: {total.per_byte('ngram'):.3f}")

        scores, completions = self._use_model(ctx, held_out)
        bits = [_scored(known, *score) for known, score in zip(baselines, scores, strict=True)]
        results = EvalResults(
            total=sum(bits, Bits()).model_copy(update={"xz": total.xz}),
            sources=_by("source", held_out, bits),
            languages=_by("language", held_out, bits),
            ngram_order=self.ngram_order,
            ngram_train_bytes=ngram.train_bytes,
            completions=completions,
        )
        (ctx.out / REPORT).write_text(results.model_dump_json(indent=2) + "\n")
        ctx.metrics(_metrics(results))
        ctx.figure("bits_per_byte", bits_figure(results))
        if len(results.languages) > 1:
            ctx.figure("bits_per_byte_by_language", languages_figure(results))
        ctx.highlight(VERDICT, verdict(results))
        ctx.highlight("baselines", compared(results))
        greedy = completions[0]
        ctx.highlight("completion", f"{greedy.prompt} → {greedy.text}")
        return EvalReport(ctx.out)

    def _check_lengths(self) -> None:
        context = self.model.config.context_length
        if self.completion_tokens >= context:
            raise StageError(
                f"completion_tokens is {self.completion_tokens}, but the model's context has only {context} tokens: "
                "make it smaller"
            )

    def _held_out(self) -> list[HeldOut]:
        """The documents with the smallest ids of each source and language, ordered by source and id."""
        smallest: dict[tuple[str, str], list[HeldOut]] = defaultdict(list)
        for document in self.corpus.documents("validation"):
            data = document.text.encode()
            kept = data[: self.document_bytes].decode(errors="ignore").encode()  # cut at the end of a character
            one = HeldOut(document.id, document.source, document.language, kept, whole=len(kept) == len(data))
            for group, most in (
                (("source", one.source), self.documents_per_source),
                (("language", one.language), self.documents_per_language),
            ):
                insort(smallest[group], one, key=_id)
                del smallest[group][most:]
        found = {document.id: document for chosen in smallest.values() for document in chosen if document.data}
        if not found:
            raise StageError(
                "evaluate scores validation documents, and the corpus has none: set validation_fraction of its "
                "step above 0"
            )
        return sorted(found.values(), key=lambda document: (document.source, document.id))

    def _training_texts(self) -> Iterator[bytes]:
        """Training texts from all shards, about `ngram_train_bytes` of them."""
        size = self.corpus.manifest.size("train").bytes
        for document in self.corpus.documents("train", fraction=self.ngram_train_bytes / size):
            yield document.text.encode()

    def _use_model(
        self, ctx: Context, held_out: Sequence[HeldOut]
    ) -> tuple[list[tuple[int, float]], tuple[Completion, ...]]:
        """The number of tokens and the bits of each document, and the completions, greedy ones first."""
        import numpy as np
        import torch

        from stages.evaluation.completions import complete
        from stages.evaluation.likelihood import document_nats

        torch.set_num_threads(self.threads)
        model = self.model.load(device="cuda" if self.gpus else "cpu")
        tokenizer = self.model.tokenizer()

        def progress(unit: str) -> Callable[[int, int], None]:
            def show(done: int, total: int) -> None:
                if ctx.stopping():
                    raise Stopped
                ctx.progress(done, total, unit)

            return show

        end = model.config.eos_token_id
        texts = [document.data.decode() for document in held_out]
        encoded = encode_batch(tokenizer, texts)
        tokens = [ids + [end] * document.whole for ids, document in zip(encoded, held_out, strict=True)]
        overlap = int(self.overlap * model.config.context_length)
        start = document_start(model.config, tokenizer)
        nats = document_nats(model, tokens, start=start, end_of_text=end, overlap=overlap, progress=progress("windows"))
        if not np.isfinite(nats).all():
            raise StageError(
                "the model's loss of held-out text is not finite: its activations overflow. Train it again, with a "
                "lower learning rate, for example."
            )
        scores = [(len(ids), float(loss) / math.log(2)) for ids, loss in zip(tokens, nats, strict=True)]

        completions = complete(
            model,
            tokenizer,
            self.prompts or [first_words(text) for text in texts[:PROMPTS]],
            max_tokens=self.completion_tokens,
            temperatures=(0.0, self.temperature),
            seed=self.seed,
            progress=progress("completions"),
        )
        return scores, completions


def verdict(results: EvalResults) -> str:
    """How the model compares with the strongest baseline on the same bytes; a second line if there are few of them."""
    total = results.total
    names = {"xz": "xz -9", "ngram": _ngram(results)}
    strongest = min(names, key=total.per_byte)
    model, baseline = total.per_byte("model"), total.per_byte(strongest)
    relation = f"{abs(model / baseline - 1):.1%} {'better' if model < baseline else 'worse'} than"
    said = f"{model:.3f} bits per byte, {relation} {names[strongest]} ({baseline:.3f}), the strongest baseline"
    if total.bytes >= ENOUGH_BYTES:
        return said
    return (
        f"{said}\nOnly {total.bytes / 1e3:,.0f} kB of held-out text were scored. Below {ENOUGH_BYTES / 1e3:.0f} kB the "
        "comparison is uncertain: add text, or hold more of it out (validation_fraction of the corpus, "
        "documents_per_source, document_bytes)."
    )


def compared(results: EvalResults) -> str:
    """The bits per byte of the model and of every baseline, and the text that they encode."""
    total = results.total
    documents = f"{total.documents:,} document{'s' if total.documents > 1 else ''}"
    return (
        f"Bits per byte of {total.bytes / 1e3:,.0f} kB of held-out text in {documents}: the model "
        f"{total.per_byte('model'):.3f}, xz -9 {total.per_byte('xz'):.3f} for one file of all documents and "
        f"{total.per_byte('xz_per_document'):.3f} with each document compressed on its own, as the model sees them, "
        f"{_ngram(results)} {total.per_byte('ngram'):.3f}."
    )


def _ngram(results: EvalResults) -> str:
    return f"an n-gram model of {results.ngram_order} bytes"


def _id(document: HeldOut) -> str:
    return document.id


def _baselines(document: HeldOut, ngram: NgramBaseline) -> Bits:
    """The baselines of one document, except `xz`, which is of several documents in one file."""
    from stages.evaluation.compression import xz_bits

    return Bits(
        documents=1,
        bytes=len(document.data),
        ngram=ngram.document_bits(document.data, document.whole),
        xz_per_document=xz_bits(document.data),
    )


def _by(cut: Literal["source", "language"], documents: Sequence[HeldOut], bits: Sequence[Bits]) -> dict[str, Bits]:
    """The bits of each source or language, ordered by name."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, document in enumerate(documents):
        groups[getattr(document, cut)].append(place)
    return {
        name: _together([documents[place] for place in places], [bits[place] for place in places])
        for name, places in sorted(groups.items())
    }


def _together(documents: Sequence[HeldOut], bits: Sequence[Bits]) -> Bits:
    from stages.evaluation.compression import xz_bits

    one_file = xz_bits(b"".join(document.data for document in documents))
    return sum(bits, Bits()).model_copy(update={"xz": one_file})


def _scored(bits: Bits, tokens: int, model_bits: float) -> Bits:
    return bits.model_copy(update={"tokens": tokens, "model": model_bits})


def _metrics(results: EvalResults) -> dict[str, float]:
    total = results.total
    by_source = {
        f"{source.replace(' ', '_')}_bits_per_byte": bits.per_byte("model") for source, bits in results.sources.items()
    }
    by_language = {
        f"bits_per_byte/language/{language or 'none'}": bits.per_byte("model")
        for language, bits in results.languages.items()
    }
    return {
        "perplexity": total.perplexity,
        "bits_per_byte": total.per_byte("model"),
        "xz_bits_per_byte": total.per_byte("xz"),
        "xz_per_document_bits_per_byte": total.per_byte("xz_per_document"),
        "ngram_bits_per_byte": total.per_byte("ngram"),
        "evaluated_kilobytes": total.bytes / 1e3,
        **by_source,
        **by_language,
    }
