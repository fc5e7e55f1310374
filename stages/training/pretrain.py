"""Pretraining: trains a decoder from random weights on a token dataset, with its state sharded over ranks by ZeRO.

Training is bitwise the same for every number of ranks and every ZeRO stage, so those are not part of the checkpoint's
identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Stage
from stages.model.config import DecoderConfig
from stages.training import memory_plan
from stages.training.recipe import Recipe, Training
from stages.training.task import Task


class Pretrain(Stage, Training):
    """Trains a decoder from its initialisation."""

    headline: ClassVar[str] = "validation_loss"

    tokens: TokenDataset
    model: DecoderConfig
    separate_documents: bool = Field(True, description="packed documents do not attend to each other")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sequence_length > self.model.context_length:
            raise ValueError(
                f"sequence_length {self.sequence_length} is longer than the model's context_length "
                f"{self.model.context_length}"
            )
        return self

    def demand(self) -> Demand:
        return memory_plan.demand(self.model, self)

    def forecast(self) -> CheckpointForecast:
        return CheckpointForecast(config=self.model)

    def cheaper_settings(self) -> Iterable[Mapping[str, object]]:
        return memory_plan.cheaper_settings(self)

    def run(self, ctx: Context) -> Checkpoint:
        from stages.training import checkpoints, report
        from stages.training.gang import train_on_gang

        build = partial(
            pretraining_task,
            tokens=self.tokens.path,
            model=self.model,
            separate_documents=self.separate_documents,
        )
        identity = f"{self.model.model_dump_json()} {self.separate_documents}"
        result = train_on_gang(ctx, self, self.demand(), build, identity)
        report.figures(ctx, result, self.model, self, self)
        weights = checkpoints.weights(Path(result.checkpoint))
        return Checkpoint.save(ctx.out, weights, self.model, self.tokens.tokenizer_path, report.facts(result))


def pretraining_task(recipe: Recipe, tokens: Path, model: DecoderConfig, separate_documents: bool) -> Task:
    """The task of pretraining `model` on the dataset at `tokens`. The training loop calls it on every rank."""
    import torch

    from stages.model.decoder import Decoder
    from stages.model.initialise import initial_values
    from stages.training.language_modelling import language_modelling

    with torch.device("meta"):
        decoder = Decoder(model)
    initial = partial(initial_values, model, recipe.seed)
    return language_modelling(decoder, initial, TokenDataset(tokens), recipe, separate_documents=separate_documents)
