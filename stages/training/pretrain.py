"""Pretraining: a decoder from nothing on a token dataset, its training state shared out over ranks by ZeRO.

The work is `stages/training/`'s; here is what is trained on what. Training is bitwise the same for every number of
ranks and every ZeRO stage, so those are no part of the checkpoint's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Stage
from stages.model.config import DecoderConfig
from stages.training import memory
from stages.training.recipe import Recipe, Training
from stages.training.task import Task


class Pretrain(Stage, Training):
    """A decoder trained from its initialisation. Reads TokenDataset, leaves Checkpoint."""

    headline: ClassVar[str] = "validation_loss"

    tokens: TokenDataset
    model: DecoderConfig
    separate_documents: bool = Field(True, description="packed documents do not see each other")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sequence_length > self.model.context_length:
            raise ValueError(
                f"sequence_length {self.sequence_length} is longer than the model's context_length "
                f"{self.model.context_length}"
            )
        return self

    def demand(self) -> Demand:
        return memory.demand(self.model, self)

    def forecast(self) -> CheckpointForecast:
        return CheckpointForecast(config=self.model)

    def cheaper_settings(self) -> Iterable[Mapping[str, object]]:
        return memory.cheaper_settings(self)

    def run(self, ctx: Context) -> Checkpoint:
        from stages.training import checkpoints, report
        from stages.training.gang import train_on_gang

        arguments = {
            "tokens": str(self.tokens.path),
            "model": self.model.model_dump(mode="json"),
            "separate_documents": self.separate_documents,
        }
        identity = f"{self.model.model_dump_json()} {self.separate_documents}"
        result = train_on_gang(ctx, self, self.demand(), "stages.training.pretrain:build", arguments, identity)
        report.figures(ctx, result, self.model, self, self)
        weights = checkpoints.weights(Path(result.checkpoint))
        return Checkpoint.save(ctx.out, weights, self.model, self.tokens.tokenizer_path, report.facts(result))


def build(recipe: Recipe, tokens: str, model: Mapping[str, Any], separate_documents: bool) -> Task:
    """The task of pretraining, as the training loop calls for it on every rank."""
    import torch

    from stages.model.decoder import Decoder
    from stages.model.initialise import initial_values
    from stages.training.language_modelling import language_modelling

    config = DecoderConfig.model_validate(model)
    with torch.device("meta"):
        decoder = Decoder(config)
    dataset = TokenDataset(Path(tokens))
    initial = partial(initial_values, config, recipe.seed)
    return language_modelling(decoder, initial, dataset, recipe, separate_documents=separate_documents)
