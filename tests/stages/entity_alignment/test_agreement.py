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


def test_the_posterior_separates_where_most_are_wrong() -> None:
    generator = torch.Generator().manual_seed(0)
    null = 0.1 * torch.randn(4000, generator=generator)
    values = torch.cat([0.1 * torch.randn(700, generator=generator), 0.5 + 0.1 * torch.randn(300, generator=generator)])
    found = posterior(values, null)
    assert float(found[:700].mean()) < 0.1
    assert float(found[700:].mean()) > 0.9


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_prediction_stands_in_for_a_wrong_image(tmp_path: Path, share: float) -> None:
    pair = simulated(tmp_path / "pair", entities=300, corruption="swapped", corrupted_images=share).load()
    clean = inputs_of(simulated(tmp_path / "clean", entities=300, corruption="swapped").load(), None).features["image"]
    given = inputs_of(pair, None).features["image"]
    inputs = inputs_of(pair, None, ("image",))
    found = inputs.features["image"]
    assert isinstance(clean, torch.Tensor)
    assert isinstance(given, torch.Tensor)
    assert isinstance(found, torch.Tensor)
    bad = np.zeros(pair.size, bool)
    bad[pair.corrupted["image"]] = True
    torch.testing.assert_close(given[~bad], clean[~bad])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(pair.size))
    assert float((given * clean).sum(dim=1)[bad].mean()) < 0.1
    assert float((found * clean).sum(dim=1)[bad].mean()) > 0.25
    assert float((found * clean).sum(dim=1)[~bad].mean()) > 0.8
    assert inputs.trust is not None
    trust = inputs.trust[:, inputs.modalities.index("image")]
    assert float(trust[bad].mean()) < float(trust[~bad].mean()) - 0.1


def test_images_that_are_right_stay(tmp_path: Path) -> None:
    pair = simulated(tmp_path / "pair", entities=300).load()
    given, inputs = inputs_of(pair, None).features["image"], inputs_of(pair, None, ("image",))
    found = inputs.features["image"]
    assert isinstance(given, torch.Tensor)
    assert isinstance(found, torch.Tensor)
    assert float((found * given).sum(dim=1).mean()) > 0.97


def test_corrupted_images_lose_weight(tmp_path: Path) -> None:
    graphs = simulated(tmp_path / "pair", entities=200, corrupted_images=0.3)
    fields = {"graphs": "graphs", "width": 8, "intermediate": 8, "epochs": 2, "doubted": ["image"]}
    alignment, _ = run_stage(AlignEntities.model_validate(fields), {"graphs": graphs}, tmp_path / "run", draw=False)
    pair, tensors = graphs.load(), alignment.tensors()
    weights = torch.cat([tensors["left_weights"], tensors["right_weights"]])
    image = alignment.facts.modalities.index("image")
    bad = np.zeros(pair.size, bool)
    bad[pair.corrupted["image"]] = True
    assert float(weights[bad, image].mean()) < 0.9 * float(weights[~bad, image].mean())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(pair.size))


def test_what_can_not_be_doubted(tmp_path: Path) -> None:
    pair = simulated(tmp_path / "pair").load()
    with pytest.raises(StageError, match="doubted: name is not among the modalities, image, attribute"):
        inputs_of(pair, None, ("name",))
    with pytest.raises(StageError, match="doubted: image can be judged by other features only"):
        inputs_of(pair, ("image", "graph"), ("image",))
    pair.vectors["image"].values[:] = 1
    with pytest.raises(StageError, match="doubted: the vectors of image are all the same"):
        inputs_of(pair, None, ("image",))
    with pytest.raises(ValueError, match="doubted: fusion names has no weights to change; use meta, global or early"):
        ModelSettings(fusion="names", doubted=("image",))
