"""Operations of a step, compared with BLOOM's log and with those that torch counts."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from stages.model.config import DecoderConfig, ExpertsConfig
from stages.training import flops
from tests.stages.model.models import SHAPES, random_tokens, shaped, small_model


def test_the_operations_of_bloom_176b_are_those_of_its_log() -> None:
    """The log has 149.77 TFLOPs per GPU for a step of 2048 samples in 104.70 s on 384 GPUs."""
    bloom = DecoderConfig(vocab_size=250_880, hidden_size=14336, layers=70, heads=112)
    per_second = 2048 * 2048 / 104.70 / 384 / 1e12
    assert flops.flops_per_target(bloom, 2048, recompute=True) * per_second == pytest.approx(149.77, rel=1e-4)
    assert flops.flops_per_target(bloom, 2048) * per_second == pytest.approx(112.885, rel=1e-5)
    needed = flops.parameter_flops(176_247_271_424, 2048 * 2048)
    assert needed / 104.70 / 384 / 1e12 == pytest.approx(110.32, rel=1e-4)
    assert flops.utilisation(needed, 104.70, 384 * 312e12) == pytest.approx(0.3536, rel=1e-3)


@pytest.mark.parametrize("shape", [*SHAPES, "experts"])
def test_the_operations_of_every_shape_are_those_that_torch_counts(shape: str) -> None:
    experts = ExpertsConfig(per_layer=(0, 4), top_k=2, residual=True)
    config = shaped("llama", experts=experts) if shape == "experts" else shaped(shape)
    model, tokens = small_model(config), random_tokens(2, 30)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    counted = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    attention = 3 * 4 * config.layers * config.heads * config.head_size * 30  # a token's; torch may leave it out
    assert counted == 2 * 30 * (flops.flops_per_target(config, 30) - attention)
