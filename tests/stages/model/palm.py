"""A reference for PaLM, written from its paper (arXiv 2204.02311, section 2), one query head and token at a time."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from stages.model.decoder import Decoder


def palm_logits(model: Decoder, tokens: Tensor) -> Tensor:
    """y = x + MLP(LayerNorm(x)) + Attention(LayerNorm(x)), multi-query, SwiGLU, RoPE, no biases, shared embeddings."""
    c, weights = model.config, {name: value.double() for name, value in model.state_dict().items()}
    embedding, size = weights["word_embeddings.weight"], c.head_size
    x = embedding[tokens]
    for layer in range(c.layers):
        block = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"blocks.{layer}.")}
        n = _layer_norm(x, block["input_layernorm.weight"], c.layer_norm_epsilon)
        fused = block["self_attention.query_key_value.weight"]
        key = _turned(n @ fused[-2 * size : -size].T, c.rotary_base)
        value = n @ fused[-size:].T
        heads = []
        for head in range(c.heads):
            query = _turned(n @ fused[head * size : (head + 1) * size].T, c.rotary_base)
            heads.append(
                torch.stack([_attend(query[:, t], key[:, : t + 1], value[:, : t + 1]) for t in range(n.shape[1])], 1)
            )
        attention = torch.cat(heads, -1) @ block["self_attention.dense.weight"].T
        gate = n @ block["mlp.dense_gate.weight"].T
        swish = gate / (1 + torch.exp(-gate))
        mlp = (swish * (n @ block["mlp.dense_h_to_4h.weight"].T)) @ block["mlp.dense_4h_to_h.weight"].T
        x = x + mlp + attention
    final = _layer_norm(x, weights["ln_f.weight"], c.layer_norm_epsilon)
    logits: Tensor = final @ embedding.T * c.logit_scale
    return logits.float()


def _layer_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * gain


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[batch, size] over [batch, seen, size]"""
    shares = torch.softmax((keys @ query[..., None])[..., 0] / math.sqrt(query.shape[-1]), -1)
    return (shares[..., None] * values).sum(1)


def _turned(x: Tensor, base: float) -> Tensor:
    """RoPE by complex numbers: the pair (i, i + size / 2) of position t is multiplied by e^(i t base^(-2 i / size))."""
    half = x.shape[-1] // 2
    turns = [[cmath.exp(1j * t * base ** (-2 * i / x.shape[-1])) for i in range(half)] for t in range(x.shape[1])]
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.tensor(turns, dtype=torch.complex128)
    return torch.cat([turned.real, turned.imag], -1)
