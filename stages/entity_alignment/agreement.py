"""Vectors that may not be their entity's own, but noise or those of another one: how likely each is its own, and what
stands in for it.

No links are used, and nothing is trained by gradients. The vector is predicted by ridge regression from everything else
that is known of the entity: its other features, and the mean features and vectors of its neighbours. Each entity is
predicted from the others' statistics alone (cross-fitting). The cosine of the prediction and the vector is compared
with the cosines of predictions and the vectors of random other entities: a mixture of that known distribution and one
more normal distribution is fitted by expectation maximisation, and the probability that a vector is its own is the
posterior of the second. Later passes predict from vectors weighted by that probability.

The prediction stands in for a vector as far as it is doubted. A zero would not do: a unit vector of fewer modalities is
nearer to others that lack the same modality than to its counterpart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.sparse import Places, SparseRows, product

DIMENSIONS = 128  # wider features are projected at random to that many, which keeps cosines
FOLDS = 5
RIDGE = 1.0  # of the mean of the diagonal of the second moments
DRAWS = 5  # random other entities, for each entity
PASSES = 2
ROUNDS = 200  # of expectation maximisation
STARTS = (0.1, 0.5, 0.8)  # of it: the share of vectors that are not their entity's own
SEED = 0
LEAST = 1e-3  # probability, so that its logarithm is finite
LEAST_COSINE = 0.05  # of predictions and vectors, so that a prediction counts something
LEAST_DEVIATION = 1e-6  # of cosines


@dataclass(frozen=True)
class Agreement:
    """Of the vectors of all entities in one modality."""

    vectors: Tensor  # [entities, d], of length 1: as far as a vector is doubted, its prediction
    share: Tensor  # [entities]: what its weight is multiplied by; a prediction counts less than an entity's own


def agreement(rows: Tensor, others: list[SparseRows | Tensor], edges: Places) -> Agreement:
    """Judge the vectors `rows` [entities, d], of length 1, by further features of the same entities.

    `edges` has a loop at every entity. A prediction counts the square root of its mean cosine with vectors that are not
    doubted, so that of a pair in which both are predicted the similarity counts that cosine.
    """
    generator = torch.Generator().manual_seed(SEED)
    target = _narrow(rows, generator)
    known = torch.cat([_narrow(one, generator) for one in others], dim=1)
    own = torch.ones(len(rows))
    fixed = torch.cat([known, _scaled(_around(known, own, edges))], dim=1)
    for _ in range(PASSES):
        x = torch.cat([fixed, _scaled(_around(target, own, edges))], dim=1)
        predicted, actual = F.normalize(_predicted(x, target, own)), F.normalize(target)
        random = np.random.default_rng(SEED)
        drawn = [
            (predicted * actual[torch.from_numpy(random.permutation(len(actual)))]).sum(dim=1) for _ in range(DRAWS)
        ]
        own = posterior((predicted * actual).sum(dim=1), torch.cat(drawn))
    found, mean = _predicted(x, rows, own), _mean(rows, own)
    cosines = (F.normalize(found - mean) * F.normalize(rows - mean)).sum(dim=1)
    cosine = float((cosines * own).sum() / own.sum())
    doubt = (1 - own).unsqueeze(1)
    vectors = F.normalize((1 - doubt) * rows + doubt * F.normalize(found))
    return Agreement(vectors, own + (1 - own) * math.sqrt(max(cosine, LEAST_COSINE)))


def posterior(values: Tensor, null: Tensor) -> Tensor:
    """The probability that each of `values` [n] is not drawn as `null` [any] is; it never falls as the value grows."""
    values, null = values.double(), null.double()
    log_null = _log_normal(values, null.mean(), null.std().clamp(min=LEAST_DEVIATION))
    _, other = max((_mixture(values, log_null, share) for share in STARTS), key=lambda found: found[0])
    order = torch.argsort(values)
    found = torch.empty_like(other)
    found[order] = torch.cummax(other[order], dim=0).values
    return found.clamp(min=LEAST).to(torch.float32)


def _mixture(values: Tensor, log_null: Tensor, start: float) -> tuple[float, Tensor]:
    """The log-likelihood of a mixture of the known distribution and a normal one, and the posterior of the second. It
    begins with the share `start` of the known one, and the greatest of the values as the other."""
    greatest = values[values >= values.quantile(start)]
    share, mean = torch.tensor(start, dtype=torch.float64), greatest.mean()
    deviation = greatest.std(correction=0).clamp(min=LEAST_DEVIATION)
    for _ in range(ROUNDS):
        first, second = log_null + share.log(), _log_normal(values, mean, deviation) + torch.log1p(-share)
        other = torch.sigmoid(second - first)
        share = (1 - other.mean()).clamp(1e-4, 0.95)
        mean = (other * values).sum() / other.sum()
        deviation = ((other * (values - mean) ** 2).sum() / other.sum()).sqrt()
        deviation = deviation.clamp(min=LEAST_DEVIATION)
    return float(torch.logaddexp(first, second).sum()), other


def _log_normal(values: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return -0.5 * ((values - mean) / deviation) ** 2 - deviation.log()


def _narrow(rows: SparseRows | Tensor, generator: torch.Generator) -> Tensor:
    """Features with mean 0 and a mean squared length of 1: [entities, <= 128]. Counts enter by their logarithms."""
    width = rows.width if isinstance(rows, SparseRows) else rows.shape[1]
    projection = torch.eye(width)
    if width > DIMENSIONS:
        projection = torch.randn(width, DIMENSIONS, generator=generator) / math.sqrt(DIMENSIONS)
    if isinstance(rows, SparseRows):
        rows = SparseRows(rows.places, rows.values.log1p())
    return _scaled(rows @ projection)


def _scaled(rows: Tensor) -> Tensor:
    rows = rows - rows.mean(dim=0)
    return rows / rows.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)


def _around(rows: Tensor, weights: Tensor, edges: Places) -> Tensor:
    """The weighted mean of the rows of each entity's neighbours; 0 where it has none: [entities, columns]."""
    ones, weights = torch.ones(len(edges.columns)), weights.unsqueeze(1)
    weighted = rows * weights
    total = product(edges, ones, weights) - weights
    return (product(edges, ones, weighted) - weighted) / total.clamp(min=LEAST)


def _mean(rows: Tensor, weights: Tensor) -> Tensor:
    return weights @ rows / weights.sum()


def _predicted(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The rows of y [n, d] predicted from those of x [n, c], each without the rows of the fold that it is in. Row i
    counts `weights` [n] of one."""
    fold = torch.from_numpy(np.random.default_rng(SEED).permutation(len(x)) % FOLDS)
    found = torch.empty_like(y)
    for number in range(FOLDS):
        held = fold == number
        rest, of_rest = x[~held], weights[~held]
        mean = _mean(y[~held], of_rest)
        weighted = rest.t() * of_rest
        moments = weighted @ rest
        moments.diagonal().add_(RIDGE * moments.diagonal().mean())
        found[held] = x[held] @ torch.linalg.solve(moments, weighted @ (y[~held] - mean)) + mean
    return found
