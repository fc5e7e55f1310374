"""Initial weights by BLOOM's rule, with a separate random generator for each parameter.

The values of a parameter depend on the seed, its name and its shape alone: neither on the order in which parameters are
initialised nor on the process that does it. Any range of the values can be computed without the rest.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from stages.model.config import DecoderConfig
from stages.model.decoder import Decoder

CHUNK = 1 << 16  # values that share one counter of the generator


def initialise(model: Decoder, seed: int) -> None:
    """Set the initial weights of a decoder in place: normal with mean 0 for matrices, 0 for biases, 1 for norms.

    The standard deviation is that of the config. For matrices that write into the residual stream it is divided by
    sqrt(2 x layers), so that the variance of the stream does not grow with depth (Megatron-LM, arXiv 1909.08053).
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial_values(model.config, seed, name, 0, parameter.numel())
            parameter.copy_(values.view(parameter.shape).to(parameter.dtype))


def initial_values(config: DecoderConfig, seed: int, name: str, start: int, stop: int) -> Tensor:
    """Initial values [stop - start] float32 of the elements [start, stop) of a parameter, in their order in memory."""
    if name.endswith("bias"):
        return torch.zeros(stop - start)
    if "layernorm" in name or name.startswith("ln_f"):
        return torch.ones(stop - start)
    deviation = config.initial_deviation
    if name == "word_embeddings.weight" and config.embedding_deviation is not None:
        deviation = config.embedding_deviation
    if name.endswith(("self_attention.dense.weight", "dense_4h_to_h.weight")):
        deviation /= math.sqrt(2 * config.layers)
    return normal(seed, name, start, stop).mul_(deviation)


def normal(seed: int, name: str, start: int, stop: int) -> Tensor:
    """Values [start, stop) of the infinite standard normal sequence of a seed and a name; [stop - start] float32."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    chunks = []
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, chunk, 0]))
        values = generator.standard_normal(CHUNK, dtype=np.float32)
        first = chunk * CHUNK
        chunks.append(values[max(start - first, 0) : stop - first])
    return torch.from_numpy(np.concatenate(chunks)) if chunks else torch.empty(0)
