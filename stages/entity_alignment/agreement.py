"""How likely it is that the vector of an entity is its own, and not noise or that of another one.

No links are used, and nothing is trained by gradients. The vector is predicted by ridge regression from everything else
that is known of the entity: its other features, and the mean features of its neighbours. Each entity is predicted from
the others' statistics alone (cross-fitting). The cosine of the prediction and the vector is compared with the cosines
of predictions and the vectors of random other entities: a mixture of that known distribution and one more normal
distribution is fitted by expectation maximisation, and the answer is the posterior of the second.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.sparse import Places, SparseRows, product

DIMENSIONS = 128  # wider features are projected at random to that many, which keeps cosines
FOLDS = 5
RIDGE = 1.0  # of the mean of the diagonal of the second moments
DRAWS = 5  # random other entities, for each entity
ROUNDS = 200  # of expectation maximisation
SEED = 0
LEAST = 1e-3  # probability, so that its logarithm is finite


def agreement(rows: Tensor, others: list[SparseRows | Tensor], edges: Places) -> Tensor:
    """The probability that each of the vectors `rows` [entities, d] belongs to its entity: [entities], at least 0.001.

    `others` are further features of the same entities; `edges` has a loop at every entity.
    """
    generator = torch.Generator().manual_seed(SEED)
    target = _narrow(rows, generator)
    known = [_narrow(one, generator) for one in others]
    everything = torch.cat([target, *known], dim=1)
    degrees = (edges.starts.diff() - 1).clamp(min=1).unsqueeze(1)
    around = (product(edges, torch.ones(len(edges.columns)), everything) - everything) / degrees
    predicted = F.normalize(_predicted(torch.cat([*known, _scaled(around)], dim=1), target))
    target = F.normalize(target)
    random = np.random.default_rng(SEED)
    drawn = [(predicted * target[torch.from_numpy(random.permutation(len(target)))]).sum(dim=1) for _ in range(DRAWS)]
    return posterior((predicted * target).sum(dim=1), torch.cat(drawn))


def posterior(values: Tensor, null: Tensor) -> Tensor:
    """The probability that each of `values` [n] is not drawn as `null` [any] is; it never falls as the value grows."""
    values, null = values.double(), null.double()
    mean, deviation = values.mean(), values.std()
    log_null = _log_normal(values, null.mean(), null.std())
    share = torch.tensor(0.1, dtype=torch.float64)  # of values that are drawn as `null` is
    for _ in range(ROUNDS):
        odds = log_null + share.log() - _log_normal(values, mean, deviation) - torch.log1p(-share)
        other = torch.sigmoid(-odds)
        share = (1 - other.mean()).clamp(1e-4, 0.95)
        mean = (other * values).sum() / other.sum()
        deviation = ((other * (values - mean) ** 2).sum() / other.sum()).sqrt().clamp(min=1e-6)
    order = torch.argsort(values)
    found = torch.empty_like(other)
    found[order] = torch.cummax(other[order], dim=0).values
    return found.clamp(min=LEAST).to(torch.float32)


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


def _predicted(x: Tensor, y: Tensor) -> Tensor:
    """The rows of y [n, d] predicted from those of x [n, c], each without the rows of the fold that it is in."""
    fold = torch.from_numpy(np.random.default_rng(SEED).permutation(len(x)) % FOLDS)
    found = torch.empty_like(y)
    for number in range(FOLDS):
        held = fold == number
        own, rest = x[held], x[~held]
        moments = rest.t() @ rest
        moments.diagonal().add_(RIDGE * moments.diagonal().mean())
        found[held] = own @ torch.linalg.solve(moments, rest.t() @ y[~held])
    return found
