"""Floating-point operations of a training step, and how much of a machine's peak they use."""

from __future__ import annotations

from stages.model.config import DecoderConfig


def training_flops(model: DecoderConfig, *, batch_size: int, sequence_length: int, recompute: bool = False) -> float:
    """Operations of one training step: three times those of the forward pass, four times in blocks with `recompute`.

    For a GPT-like decoder this is equation 3 of Narayanan et al. (arXiv 2104.04473), which BLOOM's logs use; it holds
    for every shape and for the experts that a token passes through. As there, attention counts the whole square of
    the sequence, although half of it is masked.
    """
    head = 2 * model.vocab_size * model.hidden_size
    attention = 4 * model.layers * model.heads * model.head_size * sequence_length
    blocks = 2 * model.multiplied_parameters - head + attention
    return float(batch_size * sequence_length * ((4 if recompute else 3) * blocks + 3 * head))


def parameter_flops(parameters: int, tokens: int) -> float:
    """6 N D (Kaplan et al., arXiv 2001.08361): operations to train `parameters` active parameters on `tokens`."""
    return 6.0 * parameters * tokens


def utilisation(flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """The share (0 to 1) of the peak that was used (PaLM, arXiv 2204.02311, appendix B)."""
    return flops / seconds / peak_flops_per_s
