"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turned by angles that grow with their position, so
that their products depend on the distance alone.

Number i of a head is paired with number i + head_size / 2, as Llama and GPT-NeoX do. (Pairing neighbours, as in the
paper, is the same up to a fixed order of each head's rows.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.model.config import DecoderConfig, RotaryScaling

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [batch or 1, 1, length, head_size / 2]


def frequencies(config: DecoderConfig) -> Tensor:
    """Radians per token of each pair of numbers, [head_size / 2] fp32, fastest first."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.int64).float() / config.head_size
    found = 1.0 / config.rotary_base**exponents
    return found if config.rotary_scaling is None else _scaled(found, config.rotary_scaling)


def rotation(config: DecoderConfig, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """The turns of tokens at `positions` [batch or 1, length]. Angles are computed in fp32 whatever the `dtype`."""
    angles = positions[:, None, :, None].float() * frequencies(config).to(positions.device)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Queries or keys [batch, heads, length, head_size] turned."""
    cosines, sines = by
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)


def _scaled(found: Tensor, scaling: RotaryScaling) -> Tensor:
    if scaling.kind == "linear":
        return found / scaling.factor
    turns = scaling.original_context_length * found / (2 * math.pi)  # within the original context
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * found + (1 - kept) * found / scaling.factor
