"""Every parameter of a decoder by name and shape, as plain numbers: what plans and conversions are held against.

The names are those of `Decoder`'s own parameters, in their order. A quantized model has the same ones, with a scale
beside each matrix. Imports no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.model.config import DecoderConfig

Shape = tuple[int, ...]


def tensor_shapes(config: DecoderConfig) -> dict[str, Shape]:
    """Name -> shape of every parameter, outermost first as `Decoder` makes them."""
    hidden = config.hidden_size
    shapes: dict[str, Shape] = {"word_embeddings.weight": (config.vocab_size, hidden)}
    if config.position == "learned":
        shapes["position_embeddings.weight"] = (config.context_length + config.position_offset, hidden)
    if config.embedding_norm:
        shapes |= _norm(config, "word_embeddings_layernorm")
    for layer in range(config.layers):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in _block(config, layer).items()}
    shapes |= _norm(config, "ln_f")
    if not config.tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def active_elements(config: DecoderConfig, name: str, shape: Shape) -> int:
    """Numbers of a parameter that one token passes through: `top_k` of the experts, all of any other."""
    if config.experts is not None and ".experts." in name:
        return config.experts.top_k * math.prod(shape[1:])
    return math.prod(shape)


def _block(config: DecoderConfig, layer: int) -> dict[str, Shape]:
    hidden, attended = config.hidden_size, config.heads * config.head_size
    fused = attended + 2 * config.grouped_heads * config.head_size
    shapes = _norm(config, "input_layernorm")
    shapes |= _linear(config, "self_attention.query_key_value", hidden, fused)
    shapes |= _linear(config, "self_attention.dense", attended, hidden)
    if not config.parallel_blocks:
        shapes |= _norm(config, "post_attention_layernorm")
    experts = config.experts_of(layer)
    if config.experts is None or not experts:
        return shapes | _network(config, "mlp", config.inner_size)
    shapes["mlp.gate.weight"] = (experts, hidden)
    network = _network(config, "mlp.experts", config.expert_inner_size)
    shapes |= {name: (experts, *shape) for name, shape in network.items()}
    if config.experts.residual:
        shapes |= _network(config, "mlp.residual", config.inner_size)
        shapes |= {"mlp.coefficient.weight": (2, hidden), "mlp.coefficient.bias": (2,)}
    return shapes


def _network(config: DecoderConfig, name: str, inner: int) -> dict[str, Shape]:
    into = ["dense_h_to_4h", "dense_gate"] if config.gated else ["dense_h_to_4h"]
    shapes: dict[str, Shape] = {}
    for part in into:
        shapes |= _linear(config, f"{name}.{part}", config.hidden_size, inner)
    return shapes | _linear(config, f"{name}.dense_4h_to_h", inner, config.hidden_size)


def _linear(config: DecoderConfig, name: str, in_features: int, out_features: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (out_features, in_features)}
    return shapes | {f"{name}.bias": (out_features,)} if config.biases else shapes


def _norm(config: DecoderConfig, name: str) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (config.hidden_size,)}
    has_bias = config.biases and config.normalisation == "layer"
    return shapes | {f"{name}.bias": (config.hidden_size,)} if has_bias else shapes
