"""Floating-point operations of a training step, and how much of a machine's peak they use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stages.model.config import DecoderConfig

if TYPE_CHECKING:
    import torch


def decoder_flops(
    *, batch_size: int, sequence_length: int, layers: int, hidden_size: int, vocab_size: int, recompute: bool = False
) -> float:
    """Operations of one training step of a GPT-like decoder with a feed-forward of four times the hidden size.

    Equation 3 of Narayanan et al. (arXiv 2104.04473), which BLOOM's logs use: with `recompute` the hardware's count
    (activations computed twice), without it the model's own.
    """
    passes, head_passes = (96, 16) if recompute else (72, 12)
    tokens = batch_size * sequence_length
    attention = sequence_length / (6 * hidden_size)
    head = vocab_size / (head_passes * layers * hidden_size)
    return passes * tokens * layers * hidden_size**2 * (1 + attention + head)


def parameter_flops(parameters: int, tokens: int) -> float:
    """6 N D (Kaplan et al., arXiv 2001.08361): operations to train `parameters` active parameters on `tokens`."""
    return 6.0 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """The share (0 to 1) of the peak that was used (PaLM, arXiv 2204.02311, appendix B)."""
    return flops / seconds / peak_flops_per_s


def flops_per_target(config: DecoderConfig, sequence_length: int) -> float:
    """Operations of training per predicted token: 6 N + 12 L H Q T (PaLM, arXiv 2204.02311, appendix B).

    N counts the parameters that a token is multiplied by, so not an embedding that is not the head as well. As there,
    recomputed activations are not counted, and attention as if it were not causal.
    """
    looked_up = 0 if config.tied_head else config.vocab_size * config.hidden_size
    attention = 12 * config.layers * config.heads * config.head_size * sequence_length
    return parameter_flops(config.active_parameters - looked_up, 1) + attention


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
