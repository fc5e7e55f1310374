"""Two noisy views of the same random things, whose counterparts and whose noise are known."""

from __future__ import annotations

import numpy as np

from stages.entity_alignment.graphs import Floats, Graph, Ints, Pair, Vectors, merged
from stages.entity_alignment.sources import SimulatedPair

LATENT = 12  # dimensions of what a thing is
RELATIONS = 10
ATTRIBUTES, ATTRIBUTES_EACH = 80, 6
PIXELS = 48


def make(source: SimulatedPair) -> Pair:
    """The pair. Similar things are related; attributes and images are functions of what a thing is, with noise."""
    random = np.random.default_rng(source.seed)
    n = source.entities
    things = random.standard_normal((n, LATENT)).astype(np.float32)
    similarity = things @ random.standard_normal((LATENT, LATENT)).astype(np.float32) @ things.T / LATENT
    np.fill_diagonal(similarity, -np.inf)
    gumbel = random.gumbel(size=(n, n)).astype(np.float32)
    tails = np.argsort(-(similarity + gumbel), axis=1)[:, : source.edges]
    kinds = random.integers(RELATIONS, size=(LATENT,))
    attribute_scores = things @ random.standard_normal((LATENT, ATTRIBUTES)).astype(np.float32)
    camera = random.standard_normal((LATENT, PIXELS)).astype(np.float32)

    graphs, vectors, corrupted_images, corrupted_attributes, orders = [], [], [], [], []
    for side in range(2):
        order = random.permutation(n)  # of the things, on this side
        place = np.argsort(order)
        bad_images = _some(random, n, source.corrupted_images)
        bad_attributes = _some(random, n, source.corrupted_attributes)
        graph = Graph({f"{'ab'[side]}{index}": index for index in range(n)})
        for head in range(n):
            for tail in tails[head]:
                if random.random() >= source.dropped:
                    relation = f"r{kinds[np.argmax(things[head] * things[tail])]}"
                    graph.triples.append((int(place[head]), relation, int(place[tail])))
        for index in range(n):
            scores = attribute_scores[order[index]]
            held = np.argsort(-scores)[:ATTRIBUTES_EACH]
            if index in set(bad_attributes.tolist()):
                held = random.choice(ATTRIBUTES, ATTRIBUTES_EACH, replace=False)
            graph.attributes += [(index, f"a{one}") for one in held if random.random() >= source.dropped]
        images = np.tanh(things[order] @ camera / np.sqrt(LATENT))
        images = (images + source.image_noise * random.standard_normal(images.shape)).astype(np.float32)
        replaced = (
            images[np.roll(bad_images, 1)] if source.corruption == "swapped" else _noise(random, images)[bad_images]
        )
        images[bad_images] = replaced
        graphs.append(graph)
        vectors.append(images)
        corrupted_images.append(bad_images + side * n)
        corrupted_attributes.append(bad_attributes + side * n)
        orders.append(place)
    links = [(int(orders[0][thing]), int(orders[1][thing])) for thing in range(n)]
    corrupted = {"image": np.concatenate(corrupted_images), "attribute": np.concatenate(corrupted_attributes)}
    left, right = graphs
    return merged(
        left,
        right,
        links,
        {"image": Vectors(np.arange(2 * n), np.concatenate(vectors))},
        {modality: found for modality, found in corrupted.items() if len(found)},
    )


def _some(random: np.random.Generator, n: int, share: float) -> Ints:
    return np.sort(random.permutation(n)[: round(share * n)]).astype(np.int64)


def _noise(random: np.random.Generator, values: Floats) -> Floats:
    """Noise with the mean and the deviation of each dimension, as for an image that is missing."""
    return random.normal(values.mean(axis=0), values.std(axis=0), values.shape).astype(np.float32)
