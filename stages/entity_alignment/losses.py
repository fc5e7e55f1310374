"""The loss of a batch of pairs: of the joint vectors, of each modality before the fusion, and of each after it.

L = ICL(joint) + sum_m [exp(-s_m) ICL(h_m) + s_m] + sum_m [exp(-s_m) ICL(token_m) + s_m], where ICL is the contrastive
loss and s_m are learned log-variances (Kendall et al. 2018) that both sums share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stages.base import StageError
from stages.entity_alignment.contrastive import contrastive, distilled, hardest
from stages.entity_alignment.modalities import Inputs
from stages.entity_alignment.model import AlignmentModel
from stages.entity_alignment.settings import ModelSettings, TrainingSettings

RELEASED_TOKENS = ("graph", "relation", "attribute", "image", "name", "character")  # as the released code labels them
DISTILLATION = 0.1  # weight of the inter-modal alignment of `early`


@dataclass
class Replay:
    """The hardest negative of each entity in its last batch; -1: not seen. Used once no new entities appear."""

    negatives: Tensor  # [entities]
    unseen: int = -1  # entities without one, after the last step
    ready: bool = False

    def of(self, entities: Tensor, batch: Tensor) -> Tensor:
        """The negatives of `entities` that are not in the batch themselves, each once."""
        found = self.negatives[entities].unique()
        kept: Tensor = found[(found >= 0) & ~torch.isin(found, batch)]
        return kept

    def update(self, entities: Tensor, negatives: Tensor) -> None:
        self.negatives[entities] = negatives
        unseen = int((self.negatives < 0).sum())
        self.ready = self.ready or unseen == self.unseen
        self.unseen = unseen


@dataclass
class Losses:
    """Computes the loss of batches."""

    model_settings: ModelSettings
    settings: TrainingSettings
    inputs: Inputs
    replay: Replay | None = field(default=None)

    def __post_init__(self) -> None:
        if self.settings.replay and self.replay is None:
            self.replay = Replay(torch.full((self.inputs.entities,), -1))
        self._token_order = list(range(len(self.inputs.modalities)))
        if self.settings.uncertainty == "as_released":
            if not {"image", "attribute", "relation", "graph"} <= set(self.inputs.modalities):
                raise StageError(
                    "uncertainty: as_released is defined for image, attribute, relation and graph together; "
                    f"the pair has {', '.join(self.inputs.modalities)}"
                )
            self._token_order = [
                self.inputs.modalities.index(m) for m in RELEASED_TOKENS if m in self.inputs.modalities
            ]

    def of(self, model: AlignmentModel, pairs: Tensor) -> Tensor:
        """The loss of pairs [n, 2] of entities."""
        n, left, right = len(pairs), pairs[:, 0], pairs[:, 1]
        batch = torch.cat([left, right])
        more = [self.replay.of(one, batch) for one in (left, right)] if self.replay and self.replay.ready else []
        h, fused = model(self.inputs, torch.cat([batch, *more]))
        loss = self._joint(fused.joint, pairs, more)
        temperature = self.settings.temperature
        weights: list[Tensor | None] = [None] * h.shape[1]
        if self.settings.loss == "modality_adaptive":  # the smaller of the pair's two weights, of each modality
            weights = list(torch.minimum(fused.weights[:n], fused.weights[n : 2 * n]).detach().unbind(1))
        precision, log_variance = torch.exp(-model.log_variances), model.log_variances
        for m in range(h.shape[1]):
            one = contrastive(h[:n, m], h[n : 2 * n, m], temperature, weights[m])
            loss = loss + precision[m] * one + log_variance[m]
        if fused.tokens is not None:
            for variance, m in enumerate(self._token_order):
                one = contrastive(fused.tokens[:n, m], fused.tokens[n : 2 * n, m], temperature, weights[m])
                loss = loss + precision[variance] * one + log_variance[variance]
        if self.model_settings.fusion == "early":
            a, b = fused.joint[:n], fused.joint[n : 2 * n]
            for m in range(h.shape[1]):
                one = distilled(h[:n, m], h[n : 2 * n, m], a, b, temperature)
                loss = loss + DISTILLATION * one
        return loss

    def _joint(self, joint: Tensor, pairs: Tensor, more: list[Tensor]) -> Tensor:
        n = len(pairs)
        a, b = joint[:n], joint[n : 2 * n]
        negatives = None
        if more:
            negatives = joint[2 * n : 2 * n + len(more[0])], joint[2 * n + len(more[0]) :]
        if self.replay is not None:
            left, right = pairs.unbind(1)
            extra = more or [left[:0], right[:0]]
            of_left = hardest(a, b, negatives[0] if negatives else None)
            of_right = hardest(b, a, negatives[1] if negatives else None)
            found = torch.cat(
                [torch.cat([right, left, extra[0]])[of_left], torch.cat([left, right, extra[1]])[of_right]]
            )
            self.replay.update(torch.cat([left, right]), found)
        return contrastive(a, b, self.settings.temperature, negatives=negatives)
