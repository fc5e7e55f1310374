"""Floating-point operations of a training step, and how much of a machine's peak they use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stages.model.config import DecoderConfig
from stages.model.parameters import multiplied_parameter_count

if TYPE_CHECKING:
    import torch


def flops_per_target(config: DecoderConfig, sequence_length: int, *, recompute: bool = False) -> float:
    """Operations of training per predicted token: three times those of the forward pass, with `recompute` four times
    in the blocks.

    For a GPT-like decoder this is equation 3 of Narayanan et al. (arXiv 2104.04473), which BLOOM's logs use; it holds
    for every shape and for the experts that a token passes through. Attention counts the whole square of the
    sequence, as there and in PaLM's count (arXiv 2204.02311, appendix B), although half of it is masked.
    """
    head = 2 * config.vocab_size * config.hidden_size
    attention = 4 * config.layers * config.heads * config.head_size * sequence_length
    blocks = 2 * multiplied_parameter_count(config) - head + attention
    return float((4 if recompute else 3) * blocks + 3 * head)


def parameter_flops(parameters: int, tokens: int) -> float:
    """6 N D (Kaplan et al., arXiv 2001.08361): operations to train `parameters` active parameters on `tokens`."""
    return 6.0 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """The share (0 to 1) of the peak that was used (PaLM, arXiv 2204.02311, appendix B)."""
    return flops / seconds / peak_flops_per_s


def measured_peak(dtype: torch.dtype, device: torch.device, size: int = 768) -> float:
    """Operations a second of square matrix products on this device with the threads in use: the best of a few."""
    import torch

    factors = torch.ones(2, size, size, dtype=dtype, device=device)
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        float((factors[0] @ factors[1])[0, 0])  # a value of it: on a GPU, wait for the end
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
