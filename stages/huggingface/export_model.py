"""Exports a model: writes a Checkpoint as a directory that Hugging Face's libraries load, with a model card.

This is the exact reverse of the import. The family that the model is written as follows from its config. The card
reports the corpus, the training and the evaluation of the run.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, cast

from pydantic import Field, PositiveInt, StringConstraints

from stages.artifacts.checkpoint import TEMPLATE, Checkpoint
from stages.artifacts.corpus import Corpus
from stages.artifacts.evaluation_report import EvalReport, EvaluationForecast
from stages.base import Context, Edge, Stage, StageError, Stopped
from stages.huggingface import model_directory
from stages.huggingface.families import write_config
from stages.huggingface.huggingface_model import CARD, HuggingFaceModel
from stages.huggingface.model_card import Card, card_text

# The identifiers that the Hub accepts for a licence, a language or a tag.
_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=100)]


class ExportModel(Stage):
    """Exports a model in the Hugging Face format, with a model card."""

    headline: ClassVar[str | None] = "files"
    spawns: ClassVar[bool] = False

    model: Checkpoint
    corpus: Corpus | None = None  # the training data, for the card
    evaluation: EvalReport | None = None  # an evaluation of this model, for the card
    name: str = Field("bloomline", min_length=1, max_length=100, pattern=r"^[^\n]+$")  # the title of the card
    license: _Word  # the Hub's identifier: "apache-2.0", or "bigscience-bloom-rail-1.0" for BLOOM
    license_link: str | None = Field(
        None, pattern=r"^https?://\S+$"
    )  # a link to the text of the licence, if `license` is "other"
    languages: tuple[_Word, ...] = ()  # codes: "en", "fr"
    tags: tuple[_Word, ...] = ()
    datasets: tuple[_Word, ...] = ()  # their identifiers on the Hub
    summary: str = Field("", max_length=10_000)  # a paragraph for the card: intended uses and limits
    max_shard_bytes: PositiveInt = (
        5_000_000_000  # limit on one file; a larger model is written to several files and an index
    )

    def forecast(self) -> None:
        """Nothing is forecast. Raises StageError if the evaluation measures another model than the one exported."""
        model, evaluation = cast("object", self.model), cast("object", self.evaluation)
        if not (isinstance(model, Edge) and isinstance(evaluation, Edge)):
            return
        known = evaluation.forecast
        if isinstance(known, EvaluationForecast) and known.model_step != model.step:
            raise StageError(
                f"evaluation: {evaluation.step} measures the model of {known.model_step}, but the exported model is "
                f"that of {model.step}; name a step that evaluates {model.step}, or leave evaluation out"
            )

    def run(self, ctx: Context) -> HuggingFaceModel:
        from stages.huggingface.export_files import write_tensors, write_tokenizer

        config = self.model.config
        family, values = write_config(config)
        with self.model.open_tensors() as tensors:

            def moved(done: int, total: int) -> None:
                if ctx.stopping():
                    raise Stopped
                ctx.progress(done, total, "tensors")

            written = write_tensors(ctx.out, family, config, tensors, self.max_shard_bytes, moved)
        values |= {"dtype": written.dtype, "use_cache": True}
        ids = {name: values[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        for name, content in ((model_directory.CONFIG, values), ("generation_config.json", ids)):
            (ctx.out / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        write_tokenizer(ctx.out, self.model.tokenizer_path, self.model.tokenizer(), config)
        if (template := self.model.chat_template) is not None:
            (ctx.out / TEMPLATE).write_text(template, encoding="utf-8")
        (ctx.out / CARD).write_text(card_text(self._card(family.name)), encoding="utf-8")
        ctx.metrics({"files": written.files, "tensors": written.tensors, "bytes": written.nbytes})
        files = f"{written.files} file{'s' if written.files > 1 else ''}"
        ctx.note(f"wrote {family.architecture}: {written.tensors} tensors in {files}")
        return HuggingFaceModel(ctx.out)

    def _card(self, family: str) -> Card:
        return Card(
            name=self.name,
            license=self.license,
            license_link=self.license_link,
            languages=self.languages,
            tags=self.tags,
            datasets=self.datasets,
            summary=self.summary,
            family=family,
            config=self.model.config,
            facts=self.model.facts,
            corpus=self.corpus.manifest if self.corpus else None,
            evaluation=self.evaluation.results if self.evaluation else None,
        )
