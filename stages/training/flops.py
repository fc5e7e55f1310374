"""Floating-point operations of a training step, and how much of a machine's peak they use."""

from __future__ import annotations


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
