"""Aligns the entities of two knowledge graphs with MEAformer, or with one of its rivals."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from stages.base import Context, Demand, Resources, Stage, StageError
from stages.entity_alignment.alignment import EntityAlignment
from stages.entity_alignment.graph_pair import GraphPair
from stages.entity_alignment.settings import ModelSettings, TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

    from stages.entity_alignment.graphs import Pair
    from stages.entity_alignment.modalities import Inputs


class AlignEntities(ModelSettings, TrainingSettings, Stage):
    """Trains on the seed links of a pair and embeds all entities. Resumes from its checkpoint after a crash."""

    version: ClassVar[str] = "3"  # 3: vectors that are doubted are predicted
    headline: ClassVar[str | None] = "validation_mrr"
    spawns: ClassVar[bool] = False

    graphs: GraphPair

    def demand(self) -> Demand:
        return Demand(task=Resources(cpus=self.threads))

    def run(self, ctx: Context) -> EntityAlignment:
        import torch

        from stages.entity_alignment.modalities import inputs_of

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            pair = self.graphs.load()
            inputs = inputs_of(pair, self.modalities, self.doubted)
            return self._names(ctx, pair, inputs) if self.fusion == "names" else self._trained(ctx, pair, inputs)
        finally:
            torch.set_num_threads(before)

    def _trained(self, ctx: Context, pair: Pair, inputs: Inputs) -> EntityAlignment:
        import torch

        from stages.entity_alignment.figures import training_figure
        from stages.entity_alignment.model import embedded
        from stages.entity_alignment.training import Trainer

        trainer = Trainer(self._model_settings, self._training_settings, pair, inputs, ctx.scratch)
        started = time.monotonic()
        trainer.run(ctx)
        epochs = max(1, trainer.epochs - trainer.resumed_at)
        joint, weights = embedded(trainer.model, inputs, torch.arange(pair.size))
        progress = trainer.progress
        ctx.metrics({
            "seconds_an_epoch": (time.monotonic() - started) / epochs,
            "promoted_pairs": len(progress.promoted),
            "best_epoch": progress.best_epoch or progress.epoch,
            **{f"weight_{name}": float(weights[:, m].mean()) for m, name in enumerate(inputs.modalities)},
        })  # fmt: skip
        if self.selection != "last":
            ctx.metrics({f"best_{self.selection}_mrr": progress.best_mrr})
        ctx.figure("training", training_figure(progress.losses, progress.selections, self.selection))
        return self._write(ctx, pair, inputs, joint, weights, trainer)

    def _names(self, ctx: Context, pair: Pair, inputs: Inputs) -> EntityAlignment:
        import torch

        from stages.entity_alignment.model import name_vectors

        if not {"name", "character"} & set(inputs.modalities):
            raise StageError("fusion: names needs the modality name or character, and the pair has neither")
        joint = name_vectors(inputs)
        weights = torch.tensor([float(m in ("name", "character")) for m in inputs.modalities])
        return self._write(ctx, pair, inputs, joint, (weights / weights.sum()).expand(pair.size, -1), None)

    @property
    def _model_settings(self) -> ModelSettings:
        return ModelSettings(**{name: getattr(self, name) for name in ModelSettings.model_fields})

    @property
    def _training_settings(self) -> TrainingSettings:
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.model_fields})

    def _write(
        self, ctx: Context, pair: Pair, inputs: Inputs, joint: Tensor, weights: Tensor, trainer: object
    ) -> EntityAlignment:
        import torch

        from stages.csls import densities
        from stages.entity_alignment.alignment import AlignmentFacts, write
        from stages.entity_alignment.training import Progress, Trainer

        middle = len(pair.entities[0])
        left, right = joint[:middle], joint[middle:]
        of_left, of_right = map(torch.from_numpy, densities(left.numpy(), right.numpy(), self.csls_neighbours))
        trained = trainer if isinstance(trainer, Trainer) else None
        progress = trained.progress if trained else Progress()
        facts = AlignmentFacts(
            model=self._model_settings,
            training=self._training_settings,
            modalities=inputs.modalities,
            entities=(middle, pair.size - middle),
            width=joint.shape[1],
            train_pairs=len(trained.train_pairs) if trained else 0,
            promoted_pairs=len(progress.promoted),
            best_epoch=progress.best_epoch or progress.epoch,
            losses=tuple(progress.losses),
            selections=tuple(progress.selections),
        )
        names = {
            "left": pair.entities[0], "right": pair.entities[1],
            "left_labels": pair.labels[0], "right_labels": pair.labels[1],
        }  # fmt: skip
        tensors = {
            "left": left, "left_weights": weights[:middle], "left_densities": of_left,
            "right": right, "right_weights": weights[middle:], "right_densities": of_right,
        }  # fmt: skip
        parameters = trained.model.state_dict() if trained else None
        return write(ctx.out, facts, names, tensors, parameters)
