from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model.cache import KeyValueCache
from stages.model.config import ExpertsConfig
from stages.model.feed_forward import MixtureOfExperts, Routing
from stages.model.parameters import parameter_count
from tests.stages.model.models import random_tokens, small_config, small_model


def mixture(experts: int, top_k: int, residual: bool, inner: int | None = None) -> MixtureOfExperts:
    config = ExpertsConfig(per_layer=(0, experts), top_k=top_k, residual=residual, feed_forward_size=inner)
    layer = small_model(small_config(experts=config)).blocks[1].mlp
    assert isinstance(layer, MixtureOfExperts)
    return layer


def plain(layer: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """The definition, token by token and expert by expert."""
    rows, weights = [], dict(layer.experts.named_parameters())
    for token in x.reshape(-1, x.shape[-1]):
        probabilities = (layer.gate.weight @ token).softmax(-1)
        best = probabilities.argsort(descending=True, stable=True)[: layer.top_k]
        output = torch.zeros_like(token)
        for expert in best:
            inner = F.gelu(
                weights["dense_h_to_4h.weight"][expert] @ token + weights["dense_h_to_4h.bias"][expert],
                approximate="tanh",
            )
            share = probabilities[expert] / probabilities[best].sum()
            output = output + share * (
                weights["dense_4h_to_h.weight"][expert] @ inner + weights["dense_4h_to_h.bias"][expert]
            )
        if layer.residual is not None:
            assert layer.coefficient is not None
            c = layer.coefficient(token).softmax(-1)
            output = c[0] * layer.residual(token) + c[1] * output
        rows.append(output)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("experts", "top_k", "inner"), [(1, 1, None), (4, 1, None), (4, 2, 24), (5, 5, None)])
def test_equals_its_definition(experts: int, top_k: int, inner: int | None, residual: bool) -> None:
    layer = mixture(experts, top_k, residual, inner)
    x = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(1), requires_grad=True)
    y = x.detach().clone().requires_grad_()
    routings: list[Routing] = []
    ours, wanted = layer(x, routings), plain(layer, y)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    assert routings[0].layer == 1
    assert int(routings[0].load.sum()) == 2 * 17 * top_k
    ours.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    wanted.square().sum().backward()
    for name, parameter in layer.named_parameters():
        if name != "gate.weight" or top_k > 1:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-3, rtol=1e-4, msg=name)
    if top_k > 1:
        torch.testing.assert_close(x.grad, y.grad, atol=1e-3, rtol=1e-4)


def test_gate_learns_from_the_loss_with_a_single_choice_too() -> None:
    layer = mixture(4, 1, False)
    layer(torch.randn(3, 48)).square().sum().backward()
    assert layer.gate.weight.grad is not None
    assert layer.gate.weight.grad.abs().max() > 1e-3


@given(st.integers(1, 12), st.data())
@settings(max_examples=40)
def test_balance_loss(experts: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    even = Routing(
        0, torch.full((experts, experts), 1 / experts), torch.arange(experts * top_k).view(-1, top_k) % experts
    )
    assert even.balance_loss().item() == pytest.approx(1)
    confident = torch.zeros(6, experts)
    confident[:, 0] = 1
    collapsed = Routing(0, confident, torch.zeros(6, 1, dtype=torch.int64))
    assert collapsed.balance_loss().item() == pytest.approx(experts)
    assert collapsed.load.tolist() == [6] + [0] * (experts - 1)


def test_balance_loss_evens_the_load() -> None:
    layer = mixture(4, 1, False)
    x = torch.randn(512, 48, generator=torch.Generator().manual_seed(0)) + 1
    optimizer = torch.optim.Adam(layer.gate.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        routings: list[Routing] = []
        layer(x, routings)
        loss = routings[0].balance_loss()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1.3
    assert losses[-1] < 1.1


@torch.inference_mode()
def test_mixture_decodes_with_a_cache_and_keeps_documents_apart() -> None:
    model = small_model(small_config(experts=ExpertsConfig(per_layer=(3, 4), top_k=2)))
    tokens = random_tokens(2, 24)
    whole = model(tokens)
    cache = KeyValueCache(model.config, 2)
    parts = [model(part, cache=cache) for part in tokens.split([10, 1, 1, 12], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=0)
    documents = torch.arange(24).ge(9).long().expand(2, 24)
    other = tokens.clone()
    other[:, :9] = random_tokens(2, 9, seed=5)
    torch.testing.assert_close(
        model(tokens, documents=documents)[:, 9:], model(other, documents=documents)[:, 9:], atol=2e-5, rtol=0
    )


def test_parameters_are_as_many_as_the_config_says() -> None:
    for experts in (
        ExpertsConfig(per_layer=(0, 5), top_k=2),
        ExpertsConfig(per_layer=(3, 4), residual=True),
        ExpertsConfig(per_layer=(3, 4), feed_forward_size=10),
    ):
        model = small_model(small_config(experts=experts))
        assert sum(p.numel() for p in model.parameters()) == parameter_count(model.config)
