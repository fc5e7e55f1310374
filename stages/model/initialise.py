"""Initial weights: BLOOM's rule for every shape, each parameter from a generator of its own.

A parameter's values depend on the seed, its name and its shape alone, not on the order in which parameters are made
nor on which process makes them; and any range of them can be made without the rest.
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
    """Give a decoder its initial weights, in place: matrices normal around 0, biases 0, norms 1.

    The standard deviation is the config's; that of the matrices which write into the residual stream is divided by
    sqrt(2 layers), so that the stream's variance does not grow with depth.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_values(model.config, seed, name, parameter.shape).to(parameter.dtype))


def initial_values(config: DecoderConfig, seed: int, name: str, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """The initial values of one parameter, fp32."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "layernorm" in name or name.startswith("ln_f"):
        return torch.ones(shape)
    deviation = config.initial_deviation
    if name == "word_embeddings.weight" and config.embedding_deviation is not None:
        deviation = config.embedding_deviation
    if name.endswith(("self_attention.dense.weight", "dense_4h_to_h.weight")):
        deviation /= math.sqrt(2 * config.layers)
    return normal(seed, name, 0, math.prod(shape)).mul_(deviation).view(shape)


def normal(seed: int, name: str, start: int, stop: int) -> Tensor:
    """Values `start` to `stop` of the endless standard normal sequence that belongs to a seed and a name, fp32."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    chunks = []
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, chunk, 0]))
        values = generator.standard_normal(CHUNK, dtype=np.float32)
        first = chunk * CHUNK
        chunks.append(values[max(start - first, 0) : stop - first])
    return torch.from_numpy(np.concatenate(chunks)) if chunks else torch.empty(0)
