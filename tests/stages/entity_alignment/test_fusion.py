"""The weights of modalities, against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from stages.entity_alignment.fusion import GlobalFusion, MetaFusion
from stages.entity_alignment.settings import ModelSettings


def test_meta_weights_by_hand() -> None:
    fusion = MetaFusion(ModelSettings(width=1, intermediate=0), 2).eval()
    with torch.no_grad():
        parameters = dict(fusion.named_parameters())
        for name in ("query", "key"):
            parameters[f"layers.0.{name}.weight"].fill_(1)
            parameters[f"layers.0.{name}.bias"].zero_()
        fused = fusion(torch.tensor([[[0.0], [1.0]]]))
    # Attention: [1/2, 1/2] and softmax(0, 1) = [0.268941, 0.731059]. Sums of columns, over sqrt(2): 0.768941, 1.231059.
    assert fused.weights[0].tolist() == pytest.approx([0.419028, 0.580972], abs=1e-5)
    assert fused.joint[0].tolist() == pytest.approx([0.0, 0.580972], abs=1e-5)  # of normalised vectors


def test_weights_of_a_meta_fusion_are_the_entitys_own_and_sum_to_one() -> None:
    torch.manual_seed(0)
    fusion = MetaFusion(ModelSettings(width=6, fusion_heads=2, fusion_layers=2), 3).eval()
    h = torch.randn(5, 3, 6)
    fused = fusion(h)
    torch.testing.assert_close(fused.weights.sum(1), torch.ones(5))
    torch.testing.assert_close(fusion(h[2:3]).joint, fused.joint[2:3])
    assert fused.tokens is not None
    assert fused.weights.std(dim=0).min() > 0


def test_global_weights_are_the_same_for_all() -> None:
    fusion = GlobalFusion(2, learned=True)
    with torch.no_grad():
        fusion.logits.copy_(torch.tensor([1.0, 3.0]).log())
    fused = fusion(torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]]))
    assert fused.weights.tolist() == [pytest.approx([0.25, 0.75])] * 2
    assert fused.joint[0].tolist() == pytest.approx([0.15, 0.2, 0, 0.75])
    assert fused.tokens is None


def test_equal_weights_are_not_learned() -> None:
    assert not any(one.requires_grad for one in GlobalFusion(3, learned=False).parameters())
