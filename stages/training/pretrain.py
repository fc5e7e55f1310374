"""Pretraining: trains a decoder on a token dataset, from random weights or from those of a checkpoint (fine-tuning,
continued pretraining), with its state sharded over ranks by ZeRO.

Training is bitwise the same for every number of ranks and every ZeRO stage, so those are not part of the checkpoint's
identity.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, PositiveFloat, model_validator

from stages.artifacts.checkpoint import Checkpoint, CheckpointForecast
from stages.artifacts.tokenizer import check_same_tokenizer, refuse_other_tokenizer, tokenizer_step
from stages.artifacts.tokens import TokenDataset
from stages.base import Context, Demand, Stage
from stages.model.config import DecoderConfig
from stages.training import memory_plan
from stages.training.freezing import frozen_parameters
from stages.training.recipe import Recipe, Training
from stages.training.schedule import stable_steps
from stages.training.starting_point import KeptState, StartingPoint
from stages.training.task import StartState, Task

if TYPE_CHECKING:
    from torch import Tensor


class Pretrain(Stage, Training):
    """Trains a decoder from its initialisation, or from a checkpoint."""

    headline: ClassVar[str] = "validation_loss"

    tokens: TokenDataset
    model: DecoderConfig | None = Field(None, description="the architecture; null: that of the initial checkpoint")
    initial: StartingPoint | None = Field(None, description="a checkpoint to start from; null: random weights")
    keep_training_state: KeptState = Field(
        "none",
        description="also keep the optimizer's state in the checkpoint, so that this training can be continued: at its "
        "end, or (warmup_stable_decay) before its decay; 12 bytes per parameter",
    )
    separate_documents: bool = Field(True, description="packed documents do not attend to each other")
    max_epochs: PositiveFloat | None = Field(
        None,
        description="at most this number of passes over the training tokens: with less text there are fewer steps, and "
        "the schedule is as much shorter",
    )
    freeze: tuple[str, ...] = Field(
        (), description="parameters that are not trained: names, modules (blocks.0) or patterns (*.bias)"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.model is None) is (self.initial is None):
            found = "neither is" if self.model is None else "both are"
            raise ValueError(
                "either model (an architecture, trained from random weights) or initial.checkpoint (a step whose "
                f"weights and architecture are taken) is needed, but {found} set"
            )
        if self.model is not None and self.model.document_start is not None:
            raise ValueError("model.document_start follows from the tokens and separate_documents: leave it out")
        if self.model is not None and self.sequence_length > self.model.context_length:
            raise ValueError(
                f"sequence_length {self.sequence_length} is longer than the model's context_length "
                f"{self.model.context_length}"
            )
        if self.max_epochs is not None and (self.batch_size_ramp or self.decay_steps is not None or self._continues):
            raise ValueError(
                "max_epochs shortens a schedule that follows from steps alone: leave it out with batch_size_ramp, "
                "decay_steps or initial.take: run"
            )
        if self.keep_training_state == "before_decay":
            if self.schedule != "warmup_stable_decay" or self.decay_steps is None:
                raise ValueError(
                    "keep_training_state: before_decay needs schedule: warmup_stable_decay and decay_steps: other "
                    "schedules have no stable phase. Set keep_training_state to end"
                )
            if stable_steps(self) == 0:
                raise ValueError("keep_training_state: before_decay, but the decay begins with the first step")
        return self

    @property
    def _continues(self) -> bool:
        return self.initial is not None and self.initial.take == "run"

    def _within_epochs(self) -> Self:
        """This training with no more steps than `max_epochs` allows, and a warm-up that is as much shorter."""
        if self.max_epochs is None:
            return self
        tokens = self.tokens.facts.splits["train"].tokens
        steps = math.ceil(self.max_epochs * tokens / (self.global_batch_size * self.sequence_length))
        if steps >= self.steps:
            return self
        return self.model_copy(update={"steps": steps, "warmup_steps": self.warmup_steps * steps // self.steps})

    def _config(self) -> DecoderConfig | None:
        """The architecture; None while that of the initial checkpoint is not known."""
        return self.model if self.initial is None else self.initial.config(self.sequence_length)

    def _frozen(self) -> frozenset[str]:
        """The parameters that are not trained, as far as the architecture is known."""
        config = self._config()
        return frozen_parameters(config, self.freeze) if config is not None else frozenset()

    def demand(self) -> Demand:
        return memory_plan.demand(self._config(), self, frozen=self._frozen())

    def forecast(self) -> CheckpointForecast | None:
        if self.initial is not None:
            refuse_other_tokenizer(self.initial.checkpoint, self.tokens)
            self.initial.refuse_missing_state(self.steps)
        config = self._config()
        if config is None:
            return None
        kept = self.steps if self.keep_training_state == "end" else self._kept_step()
        if kept is not None and (self.may_end_early or self.max_epochs is not None):
            kept = 0
        return CheckpointForecast(config=config, tokenizer_of=tokenizer_step(self.tokens), state_step=kept)

    def _kept_step(self) -> int | None:
        """The step whose state is kept although training continues."""
        return stable_steps(self) if self.keep_training_state == "before_decay" else None

    def cheaper_settings(self) -> Iterable[Mapping[str, object]]:
        return memory_plan.cheaper_settings(self)

    def run(self, ctx: Context) -> Checkpoint:
        from stages.training import checkpoints, report
        from stages.training.gang import train_on_gang

        config, start = self._config(), self._start_state()
        assert config is not None  # that of an artifact is known
        trained = self.tokens.trained_config(config, self.separate_documents)
        if self.initial is not None:
            check_same_tokenizer(self.initial.checkpoint.tokenizer_path, self.tokens.tokenizer_path)
        build = partial(
            pretraining_task,
            tokens=self.tokens.path,
            model=config,
            separate_documents=self.separate_documents,
            initial=self.initial.checkpoint.path if self.initial else None,
            frozen=self._frozen(),
        )
        identity = f"{config.model_dump_json()} {self.separate_documents}"
        if self.initial is not None:
            identity += f" {self.initial.take}"
        training = self._within_epochs()
        if training.steps < self.steps:
            ctx.note(f"{training.steps} of {self.steps} steps: {self.max_epochs:g} passes over the tokens (max_epochs)")
        result = train_on_gang(ctx, training, self.demand(), build, identity, start, self._kept_step())
        report.figures(ctx, result, config, training, training, self._frozen())
        facts = report.facts(result)
        if self.initial is not None:
            facts |= {"started_from": {"take": self.initial.take, **self.initial.checkpoint.facts}}
        if self.freeze:
            facts["frozen"] = list(self.freeze)
        if self.keep_training_state != "none":
            facts["training_state_step"] = checkpoints.keep(ctx.scratch, result.steps, self._kept_step(), ctx.out)
        weights = checkpoints.weights(Path(result.checkpoint))
        return self._save(ctx.out, weights, trained, facts)

    def _start_state(self) -> StartState | None:
        """The training state that is taken from the initial checkpoint, if any. Raises StageError if it has none."""
        from stages.training import checkpoints

        if self.initial is None or self.initial.take == "weights":
            return None
        state = checkpoints.kept_state(self.initial.checkpoint.path)
        self.initial.check_state(state.step if state else None, self.steps)
        assert state is not None
        return StartState(str(state.path), continues=self.initial.take == "run")

    def _save(
        self, out: Path, weights: Mapping[str, Tensor], config: DecoderConfig, facts: Mapping[str, Any]
    ) -> Checkpoint:
        """Write the artifact. What belongs to the initial checkpoint's tokenizer (its chat template) stays with it."""
        template = self.initial.checkpoint.chat_template if self.initial else None
        return Checkpoint.save(out, weights, config, self.tokens.tokenizer_path, facts, template)


def pretraining_task(
    recipe: Recipe,
    tokens: Path,
    model: DecoderConfig,
    separate_documents: bool,
    initial: Path | None = None,
    frozen: Collection[str] = (),
) -> Task:
    """The task of training `model` on the dataset at `tokens`, which starts from the weights of the checkpoint at
    `initial` or from random ones. `frozen`: parameters that are not trained. The training loop calls it on every rank.
    """
    import torch

    from stages.model.decoder import Decoder
    from stages.model.initialise import initial_values
    from stages.training.initial_weights import initial_weights
    from stages.training.language_modelling import language_modelling

    with torch.device("meta"):
        decoder = Decoder(model)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name not in frozen)
    values = initial_weights(Checkpoint(initial)) if initial else partial(initial_values, model, recipe.seed)
    return language_modelling(decoder, values, TokenDataset(tokens), recipe, separate_documents=separate_documents)
