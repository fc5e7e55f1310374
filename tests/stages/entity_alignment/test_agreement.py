"""Whether vectors that are not their entity's own are found, without links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.base import StageError
from stages.entity_alignment.agreement import LEAST, posterior
from stages.entity_alignment.align import AlignEntities
from stages.entity_alignment.modalities import inputs_of
from stages.entity_alignment.settings import ModelSettings
from tests.stages.entity_alignment.graph_files import simulated
from tests.support import run_stage


def test_the_posterior_separates_two_known_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    null = 0.1 * torch.randn(4000, generator=generator)
    other = 0.6 + 0.1 * torch.randn(700, generator=generator)
    values = torch.cat([0.1 * torch.randn(300, generator=generator), other])
    found = posterior(values, null)
    assert float(found.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(found[:300].mean()) < 0.02
    assert float(found[300:].mean()) > 0.98
    assert float(found.min()) == pytest.approx(LEAST)
    assert bool((found[torch.argsort(values)].diff() >= 0).all())


def test_corrupted_images_lose_their_weight(tmp_path: Path) -> None:
    graphs = simulated(tmp_path / "pair", entities=200, corrupted_images=0.3)
    fields = {"graphs": "graphs", "width": 8, "intermediate": 8, "epochs": 2, "doubted": ["image"]}
    alignment, _ = run_stage(AlignEntities.model_validate(fields), {"graphs": graphs}, tmp_path / "run", draw=False)
    pair, tensors = graphs.load(), alignment.tensors()
    weights = torch.cat([tensors["left_weights"], tensors["right_weights"]])
    image = alignment.facts.modalities.index("image")
    bad = np.zeros(pair.size, bool)
    bad[pair.corrupted["image"]] = True
    assert float(weights[bad, image].mean()) < 0.5 * float(weights[~bad, image].mean())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(pair.size))


def test_what_can_not_be_doubted(tmp_path: Path) -> None:
    pair = simulated(tmp_path / "pair").load()
    with pytest.raises(StageError, match="doubted: name is not among the modalities, image, attribute"):
        inputs_of(pair, None, ("name",))
    with pytest.raises(StageError, match="doubted: image can be judged by other features only"):
        inputs_of(pair, ("image", "graph"), ("image",))
    with pytest.raises(ValueError, match="doubted: fusion names has no weights to change; use meta, global or early"):
        ModelSettings(fusion="names", doubted=("image",))
