"""The feed-forward network of a layer, and a mixture of expert copies of it.

A mixture sends each token to `top_k` of its experts by a table of which expert each token goes to: tokens are sorted
by expert, every expert multiplies its stretch, and the results go back to their tokens. Nothing is dropped and nothing
is padded; a forward pass costs `top_k` networks a token however many experts there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own customary name
from torch import Tensor, nn

from stages.model.config import DecoderConfig
from stages.model.layers import expert_linear, linear


@dataclass(frozen=True)
class Routing:
    """Where one layer sent the tokens of a forward pass."""

    layer: int
    probabilities: Tensor  # [tokens, experts] fp32: the gate's softmax over all experts
    chosen: Tensor  # [tokens, top_k] int64

    @property
    def load(self) -> Tensor:
        """How many tokens each expert was given, [experts] int64; sums to tokens x top_k."""
        return torch.bincount(self.chosen.reshape(-1), minlength=self.probabilities.shape[1])

    def balance_loss(self) -> Tensor:
        """The load-balancing loss, a scalar: E x sum over experts of (mean probability x share of the choices).

        1 when both are even, E when a confident gate sends every token to the same expert (Shazeer et al., arXiv
        1701.06538; GShard, arXiv 2006.16668; for one choice a token it is the Switch Transformer's, arXiv 2101.03961).
        """
        share = self.load / self.chosen.numel()
        return self.probabilities.shape[1] * (self.probabilities.mean(0) * share).sum()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # BLOOM's constant 0.79788456 is sqrt(2/pi) in fp32
    "relu": F.relu,
    "swiglu": F.silu,  # of the gate (arXiv 2002.05202)
}


class Network(nn.Module):
    """Two matrices with an activation between; with a gate, a third one whose activation multiplies the first's
    output. `linear(in_features, out_features)` makes a matrix."""

    def __init__(self, config: DecoderConfig, inner_size: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feed_forward]
        self.dense_h_to_4h = linear(config.hidden_size, inner_size)
        self.dense_gate = linear(config.hidden_size, inner_size) if config.gated else None
        self.dense_4h_to_h = linear(inner_size, config.hidden_size)

    def compute(self, x: Tensor, *load: list[int]) -> Tensor:
        """[..., hidden] -> [..., hidden]. `load`: what the matrices of experts ask for."""
        inner = self.dense_h_to_4h(x, *load)
        gate = self.dense_gate
        inner = self.activation(inner) if gate is None else self.activation(gate(x, *load)) * inner
        output: Tensor = self.dense_4h_to_h(inner, *load)
        return output


class FeedForward(Network):
    """The feed-forward network of a dense layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config, config.inner_size, partial(linear, config))

    def forward(self, x: Tensor, routings: list[Routing] | None = None) -> Tensor:
        """[..., hidden] -> [..., hidden]. There is no choice to make, so `routings` stays as it is."""
        return self.compute(x)


class ExpertNetworks(Network):
    """Feed-forward networks of the same shape, side by side."""

    def __init__(self, config: DecoderConfig, experts: int) -> None:
        super().__init__(config, config.expert_inner_size, partial(expert_linear, config, experts))

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden], the tokens sorted by expert."""
        return self.compute(x, load)


class MixtureOfExperts(nn.Module):
    """A feed-forward layer in which a gate chooses `top_k` of `experts` networks for each token.

    The chosen networks' outputs are mixed with the gate's probabilities, renormalised to sum to 1. With `residual`
    (PR-MoE, arXiv 2201.05596) a dense network runs beside them, and a learned pair of coefficients mixes the two.

    Both mixtures are computed as the first output plus weighted differences from it. It is the same sum, but where
    all outputs are equal, as they are when experts are fresh copies of one network, it gives that output exactly.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        assert config.experts is not None
        self.layer, self.top_k = layer, config.experts.top_k
        count = config.experts_of(layer)
        self.gate = nn.Linear(config.hidden_size, count, bias=False)
        self.experts = ExpertNetworks(config, count)
        self.residual = FeedForward(config) if config.experts.residual else None
        self.coefficient = nn.Linear(config.hidden_size, 2) if config.experts.residual else None

    def forward(self, x: Tensor, routings: list[Routing] | None = None) -> Tensor:
        """[..., hidden] -> [..., hidden]. Where the tokens went is appended to `routings`."""
        tokens = x.reshape(-1, x.shape[-1])
        # The gate computes in fp32 at any precision: its choices hang on small differences.
        probabilities = F.linear(tokens.float(), self.gate.weight.float()).softmax(-1)
        strengths, chosen = probabilities.topk(self.top_k)
        if routings is not None:
            routings.append(Routing(self.layer, probabilities, chosen))
        output = _mixed(self._through_experts(tokens, chosen), _shares(strengths).to(tokens.dtype))
        if self.residual is not None and self.coefficient is not None:
            coefficients = self.coefficient(tokens).softmax(-1)
            output = _mixed(torch.stack([self.residual(tokens), output], 1), coefficients)
        return output.view_as(x)

    def _through_experts(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Every token through each of its experts: [tokens, hidden] -> [tokens, top_k, hidden]."""
        table = chosen.reshape(-1)
        order = table.argsort(stable=True)  # places of the table, sorted by expert
        load = torch.bincount(table, minlength=self.gate.out_features).tolist()
        outputs = self.experts(tokens[order // self.top_k], load)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        mixed: Tensor = outputs[place].view(len(tokens), self.top_k, -1)
        return mixed


def _shares(strengths: Tensor) -> Tensor:
    """The chosen experts' probabilities [tokens, top_k] scaled to sum to 1.

    A single choice has the share 1 whatever its probability, so that converted models compute what they did before;
    its gradient is that of the probability relative to itself, without which the gate could not learn from the loss.
    """
    if strengths.shape[1] == 1:
        return strengths / strengths.detach()
    return strengths / strengths.sum(-1, keepdim=True)


def _mixed(outputs: Tensor, shares: Tensor) -> Tensor:
    """Outputs [tokens, n, hidden] weighted with shares [tokens, n] that sum to 1: [tokens, hidden]."""
    if outputs.shape[1] == 1:
        return outputs[:, 0] * shares
    first, others = outputs[:, 0], outputs[:, 1:]
    return first + ((others - first[:, None]) * shares[:, 1:, None]).sum(1)


def feed_forward(config: DecoderConfig, layer: int) -> FeedForward | MixtureOfExperts:
    """The feed-forward part of a layer: one network, or a mixture of experts."""
    return MixtureOfExperts(config, layer) if config.experts_of(layer) else FeedForward(config)
