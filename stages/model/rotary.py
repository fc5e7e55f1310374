"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys are rotated by angles that grow with their position,
so that their products depend on the distance alone.

Number i of a head is paired with number i + head_size / 2, as in Llama and GPT-NeoX. Pairing neighbours, as in the
paper, is equivalent up to a fixed permutation of the rows of each head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.model.config import DecoderConfig, RotaryScaling

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [batch or 1, 1, length, head_size / 2]


def frequencies(config: DecoderConfig) -> Tensor:
    """Radians per token for each pair of numbers, [head_size / 2] float32, fastest first."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.int64).float() / config.head_size
    unscaled = 1.0 / config.rotary_base**exponents
    return unscaled if config.rotary_scaling is None else _scaled(unscaled, config.rotary_scaling)


def rotation(config: DecoderConfig, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """The rotations for `positions` [batch or 1, length]. Angles are computed in float32 whatever the `dtype` of the
    result."""
    angles = positions[:, None, :, None].float() * frequencies(config).to(positions.device)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotates queries or keys [batch, heads, length, head_size]."""
    cosines, sines = by
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)


def _scaled(unscaled: Tensor, scaling: RotaryScaling) -> Tensor:
    if scaling.kind == "linear":
        return unscaled / scaling.factor
    turns = scaling.original_context_length * unscaled / (2 * math.pi)  # of a pair within the original context
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * unscaled + (1 - kept) * unscaled / scaling.factor
