"""What decides the result of an alignment: the model and its training. The defaults are those of MEAformer's DBP15K
runs."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.base import Config

Modality = Literal["image", "attribute", "relation", "graph", "name", "character"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)  # in the order in which they are stacked and concatenated
Dense = Literal["image", "name"]  # modalities that are read as vectors
Fusion = Literal["meta", "global", "concatenation", "early", "names"]


class ModelSettings(Config):
    """The encoders and their fusion."""

    fusion: Fusion = "meta"  # meta: MEAformer. global: EVA-like. early: MCLEA-like. names: no training at all
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] | None = None  # null: all that the pair has
    structure: Literal["attention", "convolution"] = "attention"  # of the graph: GAT, or GCN as in GCN-Align
    width: PositiveInt = 300  # dimensions of each modality
    graph_layers: PositiveInt = 2
    graph_heads: PositiveInt = 2
    fusion_heads: PositiveInt = 1  # meta: attention heads over the modalities
    fusion_layers: PositiveInt = 1
    intermediate: NonNegativeInt = 400  # meta: width of the feed-forward sublayer; 0: without it
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # meta
    doubted: tuple[Dense, ...] = ()  # what probably is not the entity's own is predicted from the rest, and counts less

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.fusion_heads:
            raise ValueError(f"fusion_heads: {self.fusion_heads} does not divide the width, {self.width}")
        if self.modalities is not None and len(set(self.modalities)) != len(self.modalities):
            raise ValueError("modalities: one is named twice")
        if self.doubted and self.fusion in ("names", "concatenation"):
            raise ValueError(f"doubted: fusion {self.fusion} has no weights to change; use meta, global or early")
        return self


class TrainingSettings(Config):
    """The losses, the optimizer, and which epoch is kept."""

    epochs: NonNegativeInt = 250
    batch_size: PositiveInt = 3500  # pairs
    learning_rate: PositiveFloat = 5e-4
    weight_decay: NonNegativeFloat = 1e-4
    warm_up: Annotated[float, Field(ge=0, le=1)] = 0.15  # share of the steps
    clip: PositiveFloat = 1.0  # norm of the gradient
    temperature: PositiveFloat = 0.1
    loss: Literal["plain", "modality_adaptive"] = "plain"  # plain: as released. modality_adaptive: as in the paper
    uncertainty: Literal["by_modality", "as_released"] = "by_modality"  # which log-variance a hidden token has
    replay: bool = False  # hard negatives of earlier batches
    iterative_epochs: NonNegativeInt = 0  # after `epochs`, with pairs that the model proposes itself
    propose_every: PositiveInt = 5  # epochs
    iterative_weight_decay: NonNegativeFloat = 5e-4  # at least this much
    unsupervised: Literal["image", "name", "character"] | None = None  # seeds from the similarity of this modality
    unsupervised_seeds: PositiveInt = 1000
    selection: Literal["validation", "test", "last"] = "validation"  # of the epoch; test: as released, too optimistic
    select_every: PositiveInt = 10  # epochs
    csls_neighbours: PositiveInt = 3
    seed: NonNegativeInt = 42
    threads: PositiveInt = 1  # more are faster; sums then differ in their last bits, so that this is part of the result
