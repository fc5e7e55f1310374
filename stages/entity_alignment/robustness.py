"""How an alignment holds when one modality of random entities becomes noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.entity_alignment.modalities import Inputs, with_trust
from stages.entity_alignment.model import AlignmentModel, embedded
from stages.entity_alignment.ranking import ranks
from stages.entity_alignment.settings import Modality
from stages.entity_alignment.sparse import SparseRows

SHARES = (0.0, 0.15, 0.3, 0.45, 0.6)


def corrupted(inputs: Inputs, modality: Modality, share: float, seed: int) -> Inputs:
    """Inputs in which the features of a random share of the entities are noise.

    Dense features are drawn again with the mean and the deviation of the others; bags are those of random other
    entities.
    """
    random = np.random.default_rng(seed)
    chosen = torch.from_numpy(random.permutation(inputs.entities)[: round(share * inputs.entities)])
    rows = inputs.features[modality]
    changed: SparseRows | Tensor
    if isinstance(rows, SparseRows):
        origin = torch.arange(inputs.entities)
        origin[chosen] = torch.from_numpy(random.integers(inputs.entities, size=len(chosen)))
        changed = rows.select(origin)
    else:
        shape = len(chosen), rows.shape[1]
        noise = random.normal(rows.mean(dim=0).numpy(), rows.std(dim=0).numpy(), shape).astype(np.float32)
        changed = rows.clone()
        changed[chosen] = F.normalize(torch.from_numpy(noise))
    return replace(inputs, features={**inputs.features, modality: changed})


def curve(
    model: AlignmentModel, inputs: Inputs, modality: Modality, links: Tensor, neighbours: int, seed: int
) -> tuple[tuple[float, float], ...]:
    """(share of noise, Hits@1 of the links [n, 2] from left to right) for each share.

    `inputs` are those of the pair; what the model doubts is judged again with the noise.
    """
    found = []
    for share in SHARES:
        noisy = with_trust(corrupted(inputs, modality, share, seed), model.doubted)
        left, right = (embedded(model, noisy, links[:, side])[0] for side in (0, 1))
        found.append((share, float((ranks(left.numpy(), right.numpy(), neighbours).forward <= 1).mean())))
    return tuple(found)
