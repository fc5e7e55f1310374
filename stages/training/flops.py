"""Floating-point operations of a training step, and the share of the device's peak that they use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stages.model.config import DecoderConfig
from stages.model.parameters import multiplied_parameter_count

if TYPE_CHECKING:
    import torch


def flops_per_target(config: DecoderConfig, sequence_length: int, *, recompute: bool = False) -> float:
    """Operations of the forward and backward pass per predicted token.

    That is three times the operations of the forward pass, or, with `recompute`, four times those of the blocks. For a
    GPT-like decoder this is equation 3 of Narayanan et al. (arXiv 2104.04473), which BLOOM's logs use; here it covers
    every shape, and counts only the experts that a token is routed to. Attention counts the whole square of the
    sequence, as in that paper and in PaLM (arXiv 2204.02311, appendix B), although half of it is masked.
    """
    head = 2 * config.vocab_size * config.hidden_size
    attention = 4 * config.layers * config.heads * config.head_size * sequence_length
    blocks = 2 * multiplied_parameter_count(config) - head + attention
    return float((4 if recompute else 3) * blocks + 3 * head)


def parameter_flops(parameters: int, tokens: int) -> float:
    """Operations to train on `tokens` tokens with `parameters` active ones: 6 N D (Kaplan et al., arXiv 2001.08361)."""
    return 6.0 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """Model FLOPs utilisation, from 0 to 1 (PaLM, arXiv 2204.02311, appendix B)."""
    return flops / seconds / peak_flops_per_s


def measured_peak(dtype: torch.dtype, device: torch.device, size: int = 768) -> float:
    """The best rate of a few square matrix products, in operations per second, on this device and its current threads.

    `size`: rows and columns of the matrices.
    """
    import torch

    factors = torch.ones(2, size, size, dtype=dtype, device=device)
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        float((factors[0] @ factors[1])[0, 0])  # reading a value waits for the end of the product on a GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
