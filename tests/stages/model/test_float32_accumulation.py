"""Gradients in bfloat16 equal those in float32, except for the rounding of the inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stages.model.decoder import Decoder
from stages.model.float32_accumulation import LayerNorm, lookup
from stages.model.initialise import initialise
from tests.stages.model.models import small_config


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_gradients_of_a_decoder_lose_nothing_to_the_number_of_tokens() -> None:
    """4096 tokens, most of which are a few frequent ones, as in text."""
    config = small_config(vocab_size=64, initial_deviation=0.05)
    generator = torch.Generator().manual_seed(0)
    tokens = (torch.rand(32, 128, generator=generator) ** 4 * 64).long()
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = Decoder(config)
        initialise(model, 0)
        model.bfloat16().to(dtype)  # the same values
        logits = model(tokens[:, :-1]).float()
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
        gradients[dtype] = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, expected in gradients[torch.float32].items():
        found = gradients[torch.bfloat16][name]
        assert found is not None
        assert expected is not None
        assert found.dtype == torch.bfloat16
        assert relative(found, expected) < 0.01, name


def test_a_token_that_comes_often_counts_as_often() -> None:
    weight = torch.zeros(5, 100, dtype=torch.bfloat16, requires_grad=True)
    tokens = torch.tensor([[3] * 4096, [1] * 4095 + [4]])
    found = lookup(tokens, weight)
    assert torch.equal(found, nn.functional.embedding(tokens, weight))
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad[:, 77].tolist() == [0, 4096, 0, 4096, 1]  # 4095 is not representable in bfloat16


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_has_the_gradients_of_one_in_double_precision(bias: bool) -> None:
    torch.manual_seed(1)
    norm = LayerNorm(33, bias=bias).bfloat16()
    exact = nn.LayerNorm(33, bias=bias).double()
    with torch.no_grad():
        for parameter, other in zip(norm.parameters(), exact.parameters(), strict=True):
            parameter.add_(torch.randn(33), alpha=0.3)
            other.copy_(parameter)
    x = (3 * torch.randn(700, 2, 33) + 1).bfloat16().requires_grad_()
    wide = x.detach().double().requires_grad_()
    coming = torch.randn(700, 2, 33).bfloat16() + 1
    found = norm(x)
    assert torch.equal(found, nn.functional.layer_norm(x, (33,), norm.weight, norm.bias, norm.eps))
    found.backward(coming)
    exact(wide).backward(coming.double())
    assert x.grad is not None
    assert wide.grad is not None
    assert relative(x.grad, wide.grad) < 2**-8
    for parameter, other in zip(norm.parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert relative(parameter.grad, other.grad) < 2**-8
