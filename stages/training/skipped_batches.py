"""Which batches are not trained on: those without a finite loss and gradient, and spikes.

A spike is a loss or a gradient norm that exceeds a factor times its median over the last batches that were trained on.
One bad stretch of data can make a large model diverge; PaLM (arXiv 2204.02311, section 5.1) skipped such batches by
hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from stages.training.recipe import Recipe


def reason_to_skip(
    recipe: Recipe, losses: Sequence[float], norms: Sequence[float], loss: float, norm: float
) -> str | None:
    """Why a batch with this loss (nats per target) and gradient norm is skipped; None if it is trained on.

    `losses` and `norms` are those of the last batches that were trained on, at most `recipe.spike_window`.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return f"loss {loss:g}, gradient norm {norm:g}"
    for name, value, before, factor in (
        ("loss", loss, losses, recipe.loss_spike_factor),
        ("gradient norm", norm, norms, recipe.gradient_spike_factor),
    ):
        if factor is not None and len(before) >= recipe.spike_window and value > factor * median(before):
            return f"{name} {value:.4g} is more than {factor:g} times the median {median(before):.4g}"
    return None
