"""Encoders of the graph: attention with diagonal weights (GAT), and convolution (GCN).

Both work on the sparse edges of the merged graph, undirected and with loops. Where only some entities are asked for,
the last layer is computed for these, and the layer before it for their neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.graphs import Ints
from stages.entity_alignment.settings import ModelSettings
from stages.entity_alignment.sparse import Places, places_of, product

SLOPE = 0.2  # of LeakyReLU


def edges_of(triples: Ints, entities: int) -> tuple[Places, Tensor]:
    """The undirected edges of a graph with a loop at every entity, and their normalised weights.

    An edge counts as often as it is stated in one direction or the other; with a loop of 1 at each entity and the sums
    of rows D, the weights are those of D^-1/2 A D^-1/2. Attention uses the places alone, convolution the weights too.
    """
    found = torch.from_numpy(triples)
    found = found[found[:, 0] != found[:, 2]]
    loops = torch.arange(entities)
    rows = torch.cat([found[:, 0], found[:, 2], loops])
    columns = torch.cat([found[:, 2], found[:, 0], loops])
    places, counts = places_of(rows, columns, (entities, entities))
    weights = counts.to(torch.float32)
    scale = torch.zeros(entities).index_add(0, places.rows, weights).rsqrt()
    return places, weights * scale[places.rows] * scale[places.columns]


class AttentionLayer(nn.Module):
    """Graph attention with a diagonal weight: h = w * x; e_ij = exp(-LeakyReLU(a . [h_i; h_j])); the mean over heads of
    sum_j e_ij h_j / sum_j e_ij (MEAformer's released code; Velickovic et al. 2018 with the sign of SpGAT)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, width))
        bound = 1 / math.sqrt(2 * width)
        self.attention = nn.Parameter(torch.empty(heads, 2, width).uniform_(-bound, bound))

    def forward(self, x: Tensor, places: Places, own: Tensor) -> Tensor:
        """x [columns of `places`, width]; `own` [rows]: the place in x of the entity of each row."""
        outputs = []
        ones = x.new_ones(len(x), 1)
        for weight, (a_own, a_other) in zip(self.weight, self.attention, strict=True):
            h = x * weight
            score = -F.leaky_relu((h @ a_own)[own][places.rows] + (h @ a_other)[places.columns], SLOPE)
            with torch.no_grad():  # of the row: it cancels, and keeps exp in range
                largest = torch.segment_reduce(score, "max", offsets=places.starts)[places.rows]
            e = torch.exp(score - largest)
            outputs.append(product(places, e, h) / product(places, e, ones))
        return torch.stack(outputs).mean(dim=0)


class ConvolutionLayer(nn.Module):
    """Graph convolution with a diagonal weight: D^-1/2 A D^-1/2 (w * x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, places: Places, weights: Tensor) -> Tensor:
        return product(places, weights, x * self.weight)


class Structure(nn.Module):
    """A learned vector for each entity, and layers over the edges: ELU after all but the last (ReLU for
    convolution)."""

    def __init__(self, settings: ModelSettings, entities: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(entities, settings.width).normal_(std=1 / math.sqrt(entities)))
        self.layers = nn.ModuleList(
            AttentionLayer(settings.width, settings.graph_heads)
            if settings.structure == "attention"
            else ConvolutionLayer(settings.width)
            for _ in range(settings.graph_layers)
        )

    def forward(self, places: Places, weights: Tensor, wanted: Tensor) -> Tensor:
        """The vectors of the entities `wanted` [n]: [n, width]."""
        steps = []
        rows = wanted
        for _ in self.layers:  # from the last layer to the first: which entities each has to compute
            part, entries = places.select(rows)
            part, needed = part.compact()
            steps.append((part, torch.searchsorted(needed, rows.contiguous()), weights[entries]))
            rows = needed
        x = self.embedding[rows]
        for number, (layer, (part, own, edge_weights)) in enumerate(zip(self.layers, reversed(steps), strict=True)):
            attends = isinstance(layer, AttentionLayer)
            x = layer(x, part, own) if attends else layer(x, part, edge_weights)
            if number + 1 < len(self.layers):
                x = F.elu(x) if attends else F.relu(x)
        return x
