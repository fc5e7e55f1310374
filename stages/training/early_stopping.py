"""Training that ends before the recipe's last step, because of its tokens or its validation loss.

Tokens and losses are the same for every number of ranks, so these ends are as reproducible as training itself. A time
limit (`stop_after_s`) is not, and the training loop handles it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.training.recipe import Recipe


def reason_to_stop(recipe: Recipe, tokens: int, validation_losses: Sequence[float]) -> str | None:
    """Why training ends after `tokens` targets and these validation losses (oldest first); None if it continues."""
    if recipe.stop_after_tokens is not None and tokens >= recipe.stop_after_tokens:
        return f"{tokens} tokens (stop_after_tokens)"
    last = validation_losses[-1] if validation_losses else math.inf
    if recipe.stop_at_validation_loss is not None and last <= recipe.stop_at_validation_loss:
        return f"validation loss {last:.4g} (stop_at_validation_loss)"
    if recipe.patience is not None and _validations_since_best(validation_losses) >= recipe.patience:
        return f"{recipe.patience} validations without a lower loss (patience)"
    return None


def _validations_since_best(losses: Sequence[float]) -> int:
    """Validations since the one with the lowest loss. NaN does not count as an improvement."""
    best, since = math.inf, 0
    for loss in losses:
        best, since = (loss, 0) if loss < best else (best, since + 1)
    return since
