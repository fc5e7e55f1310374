"""The parameters of a decoder, derived from its config alone: names, shapes, roles and counts.

The names and their order are those of `Decoder.named_parameters()` for a model in floating point. The module does not
import torch, so that plans can count parameters and bytes cheaply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.model.config import DecoderConfig

Shape = tuple[int, ...]

Role = Literal[
    "embedding",  # the token embedding; also the head if the two are tied
    "positions",  # learned positions, which are only looked up
    "linear",  # a matrix of attention or of a feed-forward network, dense or of experts
    "router",  # a matrix of few rows that decides where tokens go: an expert gate, PR-MoE's mixing coefficients
    "head",  # an output head that is not tied to the embedding
    "vector",  # a bias or a normalisation weight
]


@dataclass(frozen=True)
class Parameter:
    """The shape of a parameter and what the model uses it for."""

    shape: Shape
    role: Role
    per_expert: bool = False  # the first dimension counts the experts of a layer

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def parameters(config: DecoderConfig) -> dict[str, Parameter]:
    """Every parameter by name."""
    hidden = config.hidden_size
    found = {"word_embeddings.weight": Parameter((config.vocab_size, hidden), "embedding")}
    if config.position == "learned":
        rows = config.context_length + config.position_offset
        found["position_embeddings.weight"] = Parameter((rows, hidden), "positions")
    if config.embedding_norm:
        found |= _norm(config, "word_embeddings_layernorm")
    for layer in range(config.layers):
        found |= {f"blocks.{layer}.{name}": parameter for name, parameter in _block(config, layer).items()}
    found |= _norm(config, "ln_f")
    if not config.tied_head:
        found["lm_head.weight"] = Parameter((config.vocab_size, hidden), "head")
    return found


def parameter_shapes(config: DecoderConfig) -> dict[str, Shape]:
    """The shape of every parameter by name."""
    return {name: parameter.shape for name, parameter in parameters(config).items()}


def parameter_count(config: DecoderConfig) -> int:
    """The number of parameters of the model; a tied head counts once."""
    return sum(parameter.elements for parameter in parameters(config).values())


def active_parameter_count(config: DecoderConfig) -> int:
    """The number of parameters that one token passes through: `top_k` experts of each layer instead of all."""
    return sum(_active_elements(config, parameter) for parameter in parameters(config).values())


def multiplied_parameter_count(config: DecoderConfig) -> int:
    """The number of active parameters in matrices that a token is multiplied by, the head included.

    This is the count that floating-point operations follow. Embeddings that are only looked up, norms and biases are
    left out.
    """
    multiplied = {"linear", "router", "head"} | ({"embedding"} if config.tied_head else set())
    return sum(_active_elements(config, one) for one in parameters(config).values() if one.role in multiplied)


def _active_elements(config: DecoderConfig, parameter: Parameter) -> int:
    if config.experts is not None and parameter.per_expert:
        return config.experts.top_k * math.prod(parameter.shape[1:])
    return parameter.elements


def _block(config: DecoderConfig, layer: int) -> Mapping[str, Parameter]:
    hidden, attended = config.hidden_size, config.heads * config.head_size
    fused = attended + 2 * config.grouped_heads * config.head_size
    found = _norm(config, "input_layernorm")
    found |= _linear(config, "self_attention.query_key_value", hidden, fused)
    found |= _linear(config, "self_attention.dense", attended, hidden)
    if not config.parallel_blocks:
        found |= _norm(config, "post_attention_layernorm")
    experts = config.experts_of(layer)
    if config.experts is None or not experts:
        return found | _network(config, "mlp", config.inner_size)
    found["mlp.gate.weight"] = Parameter((experts, hidden), "router")
    network = _network(config, "mlp.experts", config.expert_inner_size)
    found |= {name: Parameter((experts, *one.shape), one.role, per_expert=True) for name, one in network.items()}
    if config.experts.residual:
        found |= _network(config, "mlp.residual", config.inner_size)
        found["mlp.coefficient.weight"] = Parameter((2, hidden), "router")
        found["mlp.coefficient.bias"] = Parameter((2,), "vector")
    return found


def _network(config: DecoderConfig, name: str, inner: int) -> dict[str, Parameter]:
    into = ["dense_h_to_4h", "dense_gate"] if config.gated else ["dense_h_to_4h"]
    found: dict[str, Parameter] = {}
    for part in into:
        found |= _linear(config, f"{name}.{part}", config.hidden_size, inner)
    return found | _linear(config, f"{name}.dense_4h_to_h", inner, config.hidden_size)


def _linear(config: DecoderConfig, name: str, in_features: int, out_features: int) -> dict[str, Parameter]:
    weight = {f"{name}.weight": Parameter((out_features, in_features), "linear")}
    return weight | {f"{name}.bias": Parameter((out_features,), "vector")} if config.biases else weight


def _norm(config: DecoderConfig, name: str) -> dict[str, Parameter]:
    has_bias = config.biases and config.normalisation == "layer"
    parts = ("weight", "bias") if has_bias else ("weight",)
    return {f"{name}.{part}": Parameter((config.hidden_size,), "vector") for part in parts}
