"""The inputs of each modality: bags of relations, attributes and character bigrams, and dense features."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.base import StageError
from stages.entity_alignment.agreement import agreement
from stages.entity_alignment.graphs import DENSE, Ints, Pair, Vectors
from stages.entity_alignment.settings import MODALITIES, Dense, Modality
from stages.entity_alignment.sparse import Places, SparseRows, places_of
from stages.entity_alignment.structure import edges_of

MOST_FREQUENT = 1000  # relations and attributes that are used
VARIED = 1e-6  # difference of a value of two vectors of length 1, at least
FILL_SEED = 0  # of the vectors of entities that have none


@dataclass(frozen=True)
class Inputs:
    """What the model reads of a pair: the edges with their weights, and the features of all entities by modality."""

    entities: int
    edges: Places
    edge_weights: Tensor
    features: dict[Modality, SparseRows | Tensor]  # every modality but the graph, in the order of MODALITIES
    modalities: tuple[Modality, ...]
    trust: Tensor | None = None  # [entities, modalities]: above 0, what the weights are multiplied by; None: by 1


def inputs_of(pair: Pair, modalities: tuple[Modality, ...] | None, doubted: tuple[Dense, ...] = ()) -> Inputs:
    """The inputs of a pair in the modalities that are asked for; None: all that it has. Raises StageError."""
    found: dict[Modality, SparseRows | Tensor] = {}
    if len(pair.triples):
        found["relation"] = relation_bags(pair.triples, pair.size)
    if len(pair.attributes):
        found["attribute"] = attribute_bags(pair.attributes, pair.size)
    if any(label for labels in pair.labels for label in labels):
        found["character"] = character_bags([*pair.labels[0], *pair.labels[1]])
    for name in DENSE:
        if name in pair.vectors:
            found[name] = dense(pair.vectors[name], pair.size)
    has = {*found, *(("graph",) if len(pair.triples) else ())}
    wanted = tuple(one for one in MODALITIES if one in (has if modalities is None else modalities))
    if missing := [one for one in wanted if one not in has]:
        known = ", ".join(one for one in MODALITIES if one in has)
        raise StageError(f"modalities: the pair has no {' and no '.join(missing)}; it has {known}")
    edges, weights = edges_of(pair.triples, pair.size)
    features: dict[Modality, SparseRows | Tensor] = {m: found[m] for m in wanted if m != "graph"}
    return with_trust(Inputs(pair.size, edges, weights, features, wanted), doubted)


def with_trust(inputs: Inputs, doubted: tuple[Dense, ...]) -> Inputs:
    """The inputs with predictions in place of vectors that are probably not their entity's own, and what these count,
    in the modalities that are doubted. Raises StageError."""
    trust, features = torch.ones(inputs.entities, len(inputs.modalities)), dict(inputs.features)
    for name in doubted:
        rows = inputs.features.get(name)
        if not isinstance(rows, Tensor):
            raise StageError(f"doubted: {name} is not among the modalities, {', '.join(inputs.modalities)}")
        others = [one for other, one in inputs.features.items() if other != name]
        if not others:
            raise StageError(f"doubted: {name} can be judged by other features only, and the alignment uses none")
        if bool((rows - rows[:1]).abs().max() < VARIED):
            raise StageError(f"doubted: the vectors of {name} are all the same, so that nothing tells which are wrong")
        found = agreement(rows, others, inputs.edges)
        features[name], trust[:, inputs.modalities.index(name)] = found.vectors, found.share
    return replace(inputs, features=features, trust=trust) if doubted else inputs


def relation_bags(triples: Ints, entities: int) -> SparseRows:
    """How often an entity is the head or the tail of each of the most frequent relations: [entities, <= 1000]."""
    names = _most_frequent(triples[:, 1])
    column = np.full(triples[:, 1].max() + 1, -1)
    column[names] = np.arange(len(names))
    kept = triples[column[triples[:, 1]] >= 0]
    rows = torch.from_numpy(np.concatenate([kept[:, 0], kept[:, 2]]))
    columns = torch.from_numpy(np.tile(column[kept[:, 1]], 2))
    places, counts = places_of(rows, columns, (entities, len(names)))
    return SparseRows(places, counts.to(torch.float32))


def attribute_bags(attributes: Ints, entities: int) -> SparseRows:
    """Whether an entity has each of the most frequent attributes: [entities, <= 1000] of 0 and 1."""
    names = _most_frequent(attributes[:, 1])
    column = np.full(attributes[:, 1].max() + 1, -1)
    column[names] = np.arange(len(names))
    kept = attributes[column[attributes[:, 1]] >= 0]
    shape = entities, len(names)
    places, counts = places_of(torch.from_numpy(kept[:, 0]), torch.from_numpy(column[kept[:, 1]]), shape)
    return SparseRows(places, torch.ones(len(counts)))


def character_bags(labels: list[str]) -> SparseRows:
    """Counts of the character bigrams within the words of a label, rows of length 1: [entities, bigrams].

    The row of an entity without bigrams is empty. (The released code draws a random row, which says nothing either.)
    """
    bags = [
        Counter(word[at : at + 2] for word in label.lower().split() for at in range(len(word) - 1)) for label in labels
    ]
    column = {bigram: place for place, bigram in enumerate(sorted(set().union(*bags)))}
    rows = torch.tensor([row for row, bag in enumerate(bags) for _ in bag], dtype=torch.int64)
    columns = torch.tensor([column[bigram] for bag in bags for bigram in bag], dtype=torch.int64)
    values = torch.tensor([count for bag in bags for count in bag.values()], dtype=torch.float32)
    order = torch.argsort(rows * max(1, len(column)) + columns)
    places, _ = places_of(rows, columns, (len(labels), max(1, len(column))))
    values = values[order]
    norms = torch.zeros(len(labels)).index_add(0, places.rows, values**2).sqrt()
    return SparseRows(places, values / norms[places.rows])


def dense(vectors: Vectors, entities: int) -> Tensor:
    """Rows of length 1: [entities, dimensions]. Entities without a vector get a random one with the mean and deviation
    of the others (Liu et al. 2021, EVA)."""
    random = np.random.default_rng(FILL_SEED)
    mean, deviation = vectors.values.mean(axis=0), vectors.values.std(axis=0)
    rows = random.normal(mean, deviation, (entities, vectors.values.shape[1])).astype(np.float32)
    rows[vectors.entities] = vectors.values
    return F.normalize(torch.from_numpy(rows))


def _most_frequent(values: Ints) -> Ints:
    names, counts = np.unique(values, return_counts=True)
    return names[np.argsort(-counts, kind="stable")[:MOST_FREQUENT]]
