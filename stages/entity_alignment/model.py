"""MEAformer (Chen et al. 2023, arXiv 2212.14454): a vector of each modality for each entity, fused into a joint one.

The fusion says which method it is: `meta` is MEAformer, `global` is like EVA, `early` is like MCLEA, and
`concatenation` has equal weights. All share the encoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.fusion import Fused, GlobalFusion, MetaFusion
from stages.entity_alignment.modalities import Inputs
from stages.entity_alignment.settings import Modality, ModelSettings
from stages.entity_alignment.sparse import SparseRows
from stages.entity_alignment.structure import Structure

BLOCK_ENTITIES = 512  # at once, when all entities are embedded
NAMES: tuple[Modality, ...] = ("name", "character")


class AlignmentModel(nn.Module):
    """The parameters: projections, the encoder of the graph, the fusion, and the log-variances of the losses."""

    def __init__(self, settings: ModelSettings, inputs: Inputs) -> None:
        super().__init__()
        self.doubted = settings.doubted
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(rows.width if isinstance(rows, SparseRows) else rows.shape[1], settings.width)
                for name, rows in inputs.features.items()
            }
        )
        if "graph" in inputs.modalities:
            self.structure = Structure(settings, inputs.entities)
        count = len(inputs.modalities)
        self.fusion = (
            MetaFusion(settings, count)
            if settings.fusion == "meta"
            else GlobalFusion(count, learned=settings.fusion in ("global", "early"))
        )
        self.log_variances = nn.Parameter(torch.zeros(count))

    def encode(self, inputs: Inputs, wanted: Tensor, graph: Tensor | None = None) -> Tensor:
        """The vectors of the entities `wanted` [n] before the fusion: [n, modalities, width].

        `graph`: their vectors of the graph, where they are known already.
        """
        found = []
        for name in inputs.modalities:
            if name == "graph":
                found.append(self.structure(inputs.edges, inputs.edge_weights, wanted) if graph is None else graph)
                continue
            rows = inputs.features[name]
            projection = cast("nn.Linear", self.projections[name])
            if isinstance(rows, SparseRows):
                found.append(rows.select(wanted) @ projection.weight.t() + projection.bias)
            else:
                found.append(projection(rows[wanted]))
        return torch.stack(found, dim=1)

    def forward(self, inputs: Inputs, wanted: Tensor) -> tuple[Tensor, Fused]:
        h = self.encode(inputs, wanted)
        return h, self.fusion(h, None if inputs.trust is None else inputs.trust[wanted])


@torch.no_grad()
def embedded(model: AlignmentModel, inputs: Inputs, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The joint vectors of the entities `wanted` [n], of length 1, and their weights [n, modalities], without dropout.

    The graph is encoded once, everything else in blocks of entities.
    """
    training = model.training
    model.eval()
    try:
        parts = list(_blocks(model, inputs, wanted))
    finally:
        model.train(training)
    return torch.cat([joint for joint, _ in parts]), torch.cat([weights for _, weights in parts])


def _blocks(model: AlignmentModel, inputs: Inputs, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    graph = None
    if "graph" in inputs.modalities:
        graph = model.structure(inputs.edges, inputs.edge_weights, wanted)
    for start in range(0, len(wanted), BLOCK_ENTITIES):
        block = slice(start, start + BLOCK_ENTITIES)
        h = model.encode(inputs, wanted[block], None if graph is None else graph[block])
        fused = model.fusion(h, None if inputs.trust is None else inputs.trust[wanted[block]])
        yield F.normalize(fused.joint), fused.weights.clone()


def name_vectors(inputs: Inputs) -> Tensor:
    """What entities are called, without any training: the normalised features of names, of length 1."""
    parts = []
    for modality in NAMES:
        rows = inputs.features.get(modality)
        if isinstance(rows, SparseRows):
            parts.append(rows.places.matrix(rows.values).to_dense())
        elif rows is not None:
            parts.append(rows)
    return F.normalize(torch.cat(parts, dim=1))
