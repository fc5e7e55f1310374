"""The feed-forward network of a layer, and mixtures of such networks as experts.

A mixture sends each token to `top_k` of its experts. The (token, expert) pairs are sorted by expert, each expert
multiplies its range of rows, and the results are moved back to their tokens. No token is dropped and none is padded: a
forward pass costs `top_k` networks per token, whatever the number of experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  # torch's customary name
from torch import Tensor, nn

from stages.model import independent_rows
from stages.model.config import DecoderConfig
from stages.model.layers import Linear, expert_linear, linear


@dataclass(frozen=True)
class Routing:
    """The choices of one mixture-of-experts layer in a forward pass."""

    layer: int
    probabilities: Tensor  # [tokens, experts] float32: the softmax of the gate over all experts
    chosen: Tensor  # [tokens, top_k] int64

    @property
    def load(self) -> Tensor:
        """The number of tokens of each expert, [experts] int64; the sum is tokens x top_k."""
        return torch.bincount(self.chosen.reshape(-1), minlength=self.probabilities.shape[1])

    def balance_loss(self) -> Tensor:
        """The load-balancing loss, a scalar: E x sum over the E experts of (mean probability x share of the choices).

        It is 1 if both are uniform, and E if a confident gate sends every token to the same expert. The loss goes back
        to Shazeer et al. (arXiv 1701.06538) and GShard (arXiv 2006.16668); with one choice per token it is equation 4
        of the Switch Transformer (arXiv 2101.03961).
        """
        share = self.load / self.chosen.numel()
        return self.probabilities.shape[1] * (self.probabilities.mean(0) * share).sum()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": independent_rows.gelu_tanh,
    "relu": F.relu,
    "swiglu": independent_rows.silu,  # the activation of the gate (arXiv 2002.05202)
}


class Network(nn.Module):
    """Two matrices with an activation between them. If the config has a gate, the activation is applied to the output
    of a third matrix, which multiplies the output of the first.

    linear: called with (in_features, out_features) for each matrix.
    """

    def __init__(self, config: DecoderConfig, inner_size: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feed_forward]
        self.dense_h_to_4h = linear(config.hidden_size, inner_size)
        self.dense_gate = linear(config.hidden_size, inner_size) if config.gated else None
        self.dense_4h_to_h = linear(inner_size, config.hidden_size)

    def compute(self, x: Tensor, *load: list[int]) -> Tensor:
        """[..., hidden] -> [..., hidden]. `load`: the argument that the matrices of experts need."""
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
        """[..., hidden] -> [..., hidden]. A dense layer makes no choice, so it adds nothing to `routings`."""
        return self.compute(x)


class ExpertNetworks(Network):
    """The feed-forward networks of all experts of a layer, which have the same shape."""

    def __init__(self, config: DecoderConfig, experts: int) -> None:
        super().__init__(config, config.expert_inner_size, partial(expert_linear, config, experts))

    def forward(self, x: Tensor, load: list[int]) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]. Tokens are sorted by expert; expert e gets `load[e]` of them."""
        return self.compute(x, load)


class MixtureOfExperts(nn.Module):
    """A feed-forward layer in which a gate chooses `top_k` expert networks for each token.

    The outputs of the chosen networks are weighted with the probabilities of the gate, renormalised to sum to 1. With
    `residual` (PR-MoE, arXiv 2201.05596) a dense network runs next to them, and two learned coefficients mix both.

    Both mixtures are computed as the first output plus weighted differences from it. This is the same sum, but if all
    outputs are equal, as for experts that are fresh copies of one network, the result is exactly that output.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        assert config.experts is not None
        self.layer, self.top_k = layer, config.experts.top_k
        count = config.experts_of(layer)
        self.gate = nn.Linear(config.hidden_size, count, bias=False)
        self.experts = ExpertNetworks(config, count)
        self.residual = FeedForward(config) if config.experts.residual else None
        self.coefficient = Linear(config.hidden_size, 2) if config.experts.residual else None

    def forward(self, x: Tensor, routings: list[Routing] | None = None) -> Tensor:
        """[..., hidden] -> [..., hidden]. The routing of the layer is appended to `routings`."""
        # The gate always computes in float32, because its choices depend on small differences.
        scores = independent_rows.linear(x.float(), self.gate.weight.float())
        probabilities = scores.flatten(0, -2).softmax(-1)
        strengths, chosen = probabilities.topk(self.top_k)
        if routings is not None:
            routings.append(Routing(self.layer, probabilities, chosen))
        output = _mixed(self._through_experts(x, chosen), _shares(strengths).to(x.dtype))
        if self.residual is not None and self.coefficient is not None:
            coefficients = self.coefficient(x).flatten(0, -2).softmax(-1)
            output = _mixed(torch.stack([self.residual(x).flatten(0, -2), output], 1), coefficients)
        return output.view_as(x)

    def _through_experts(self, x: Tensor, chosen: Tensor) -> Tensor:
        """The output of each chosen expert for each token: [..., hidden] -> [tokens, top_k, hidden].

        chosen: [tokens, top_k] int64.
        """
        tokens = x.flatten(0, -2)
        pairs = chosen.reshape(-1)  # the expert of each (token, choice) pair
        order = pairs.argsort(stable=True)
        load = torch.bincount(pairs, minlength=self.gate.out_features).tolist()
        outputs = self.experts(tokens[order // self.top_k], load)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        mixed: Tensor = outputs[place].view(len(tokens), self.top_k, -1)
        return mixed


def _shares(strengths: Tensor) -> Tensor:
    """The probabilities of the chosen experts, [tokens, top_k], scaled to sum to 1.

    A single choice always has the share 1, so that a converted model computes the same as before. Its gradient is that
    of the probability divided by its value; without it the gate would not learn from the loss.
    """
    if strengths.shape[1] == 1:
        return strengths / strengths.detach()
    return strengths / strengths.sum(-1, keepdim=True)


def _mixed(outputs: Tensor, shares: Tensor) -> Tensor:
    """The sum of outputs [tokens, n, hidden] weighted with shares [tokens, n] that sum to 1: [tokens, hidden]."""
    if outputs.shape[1] == 1:
        return outputs[:, 0] * shares
    first, others = outputs[:, 0], outputs[:, 1:]
    return first + ((others - first[:, None]) * shares[:, 1:, None]).sum(1)


def feed_forward(config: DecoderConfig, layer: int) -> FeedForward | MixtureOfExperts:
    """The feed-forward part of a layer (from 0): one network or a mixture of experts."""
    return MixtureOfExperts(config, layer) if config.experts_of(layer) else FeedForward(config)
