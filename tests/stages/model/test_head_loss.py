"""The head's cross-entropy by chunks has the loss and the gradients of the plain formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from stages.model import head_loss
from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder
from stages.training import activation_memory


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(vocab_size=301, hidden_size=24, layers=1, heads=2, tied_head=request.param))


@pytest.mark.parametrize("tokens", [(1, 1), (2, 128), (3, 100)])
def test_loss_and_gradients(tokens: tuple[int, int], model: Decoder) -> None:
    hidden = torch.randn(*tokens, 24, requires_grad=True)
    targets = torch.randint(0, 301, tokens)
    weight = model.head_weight
    logits = (hidden @ weight.T).flatten(0, 1)
    plain = functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    expected = torch.autograd.grad(3 * plain, [hidden, weight])
    chunked = head_loss.cross_entropy(model, hidden, targets)
    found = torch.autograd.grad(3 * chunked, [hidden, weight])
    assert torch.allclose(chunked, plain, rtol=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True))
    with torch.no_grad():
        assert torch.allclose(head_loss.cross_entropy(model, hidden, targets), plain, rtol=1e-5)


def test_large_logits_do_not_overflow(model: Decoder) -> None:
    hidden = torch.full((4, 24), 1e3, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3])
    plain = functional.cross_entropy(hidden @ model.head_weight.T, targets, reduction="sum")
    assert torch.allclose(head_loss.cross_entropy(model, hidden, targets), plain, rtol=1e-5)


def test_the_planner_knows_the_chunk() -> None:
    assert activation_memory.HEAD_ROWS == head_loss.ROWS


def test_gradients_in_bfloat16_lose_nothing_to_the_number_of_tokens() -> None:
    """4096 tokens, most with the same target: both gradients are close to those in double precision of these values."""
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(vocab_size=101, hidden_size=24, layers=1, heads=2)).bfloat16()
    hidden = torch.randn(4096, 24).bfloat16().requires_grad_()
    targets = (torch.rand(4096) ** 8 * 101).long()
    found = torch.autograd.grad(head_loss.cross_entropy(model, hidden, targets), [hidden, model.head_weight])
    wide, weight = (tensor.detach().double().requires_grad_() for tensor in (hidden, model.head_weight))
    plain = functional.cross_entropy(wide @ weight.T, targets, reduction="sum")
    bounds = (2**-7, 2**-8)  # summed in bfloat16, the weight's would be off by 1.4 times the second
    for gradient, expected, bound in zip(found, torch.autograd.grad(plain, [wide, weight]), bounds, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient.double() - expected).norm() < bound * expected.norm()
