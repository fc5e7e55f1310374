"""Graph attention and convolution on a graph of five entities, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stages.entity_alignment.settings import ModelSettings
from stages.entity_alignment.structure import AttentionLayer, Structure, edges_of

TRIPLES = np.array(
    [(0, 0, 1), (1, 1, 0), (2, 0, 1), (3, 0, 4), (3, 1, 3)]
)  # 0 - 1 - 2, 3 - 4; one edge twice, one loop
X = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])


def attended(weight: float, own: float, other: float) -> list[float]:
    places, _ = edges_of(TRIPLES, 5)
    layer = AttentionLayer(1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.attention.copy_(torch.tensor([[[own], [other]]]))
        found: list[float] = layer(X, places, torch.arange(5)).flatten().tolist()
    return found


@pytest.mark.parametrize(
    ("weight", "own", "other", "expected"),
    [
        (1, 0, 0, [1.5, 2, 2.5, 4.5, 4.5]),  # the mean of an entity and its neighbours
        (2, 0, 0, [3, 4, 5, 9, 9]),
        (1, 0, math.log(2), [4 / 3, 11 / 7, 7 / 3, 13 / 3, 13 / 3]),  # e_ij = 2^-x_j
        (1, 0, -5 * math.log(2), [5 / 3, 17 / 7, 8 / 3, 14 / 3, 14 / 3]),  # 2^x_j: LeakyReLU's slope is 1/5
        (1, 9, 0, [1.5, 2, 2.5, 4.5, 4.5]),  # what depends on the entity itself alone cancels
        (1, 0, 1e4, [1, 1, 2, 4, 4]),  # no overflow
    ],
)
def test_attention_by_hand(weight: float, own: float, other: float, expected: list[float]) -> None:
    assert attended(weight, own, other) == pytest.approx(expected, rel=1e-5)


def test_edges_and_their_normalised_weights() -> None:
    places, weights = edges_of(TRIPLES, 5)
    dense = places.matrix(weights).to_dense()
    # Row sums: 0 has a loop and an edge stated twice, 1 both of its edges, 2 one edge, 3 and 4 one edge.
    assert dense[0, 0] == pytest.approx(1 / 3)
    assert dense[0, 1] == pytest.approx(2 / math.sqrt(3 * 4))
    assert dense[1, 2] == pytest.approx(1 / math.sqrt(4 * 2))
    assert dense[3, 4] == pytest.approx(1 / 2)
    assert dense[3, 3] == pytest.approx(1 / 2), "a triple from an entity to itself is not an edge"
    assert torch.equal(dense, dense.t())


@pytest.mark.parametrize("kind", ["attention", "convolution"])
def test_some_entities_have_the_vectors_that_they_have_among_all(kind: str) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    triples = np.column_stack([random.integers(20, size=30), np.zeros(30, int), random.integers(20, size=30)])
    places, weights = edges_of(triples, 20)
    structure = Structure(ModelSettings.model_validate({"structure": kind, "width": 4}), 20)
    for parameter in structure.parameters():
        torch.nn.init.normal_(parameter)
    whole = structure(places, weights, torch.arange(20))
    wanted = torch.tensor([7, 3, 19, 3])
    torch.testing.assert_close(structure(places, weights, wanted), whole[wanted])


def test_the_numbers_of_the_entities_mean_nothing() -> None:
    torch.manual_seed(0)
    order = torch.tensor([3, 0, 4, 1, 2])  # the new number of each entity
    structure = Structure(ModelSettings(width=4), 5)
    found = structure(*edges_of(TRIPLES, 5), torch.arange(5))
    renumbered = TRIPLES.copy()
    renumbered[:, [0, 2]] = order.numpy()[TRIPLES[:, [0, 2]]]
    with torch.no_grad():
        structure.embedding[order] = structure.embedding.clone()
    torch.testing.assert_close(structure(*edges_of(renumbered, 5), torch.arange(5))[order], found)
