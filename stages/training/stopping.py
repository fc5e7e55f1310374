"""When training ends before the recipe's last step: by tokens, by loss, or by the clock.

Tokens and losses are the same for every number of ranks, so these ends are as reproducible as training itself. What
the clock ends is not: its artifact says so, and its limit is part of the fingerprint like every other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.training.recipe import Recipe


def reached(recipe: Recipe, tokens: int, validation_losses: Sequence[float]) -> str | None:
    """Why training ends here, of what can be known from its state; None if it goes on."""
    if recipe.stop_after_tokens is not None and tokens >= recipe.stop_after_tokens:
        return f"{tokens} tokens (stop_after_tokens)"
    last = validation_losses[-1] if validation_losses else math.inf
    if recipe.stop_at_validation_loss is not None and last <= recipe.stop_at_validation_loss:
        return f"validation loss {last:.4g} (stop_at_validation_loss)"
    if recipe.patience is not None and _stale(validation_losses) >= recipe.patience:
        return f"{recipe.patience} validations without a lower loss (patience)"
    return None


def _stale(losses: Sequence[float]) -> int:
    """Validations since the one with the lowest loss; a loss that is no number is no improvement."""
    best, stale = math.inf, 0
    for loss in losses:
        best, stale = (loss, 0) if loss < best else (best, stale + 1)
    return stale
