"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from stages.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of optimizer step `step` (0-based).

    Linear warm-up that reaches the peak at step `warmup_steps`, then one of: constant; cosine (Loshchilov and
    Hutter, arXiv 1608.03983) or linear down to `final_learning_rate_fraction` of the peak over `decay_steps`;
    warmup_stable_decay (arXiv 2404.06395): the peak until `decay_steps` before the end, then linear. The last step
    of the decay is the first at the final value.
    """
    peak = recipe.learning_rate
    if step < recipe.warmup_steps:
        return peak * (step + 1) / (recipe.warmup_steps + 1)
    if recipe.schedule == "constant":
        return peak
    decay_steps = recipe.decay_steps or recipe.steps - recipe.warmup_steps
    start = recipe.steps - decay_steps if recipe.schedule == "warmup_stable_decay" else recipe.warmup_steps
    done = min(max(step - start, 0) / max(decay_steps - 1, 1), 1.0)
    kept = 0.5 * (1 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1 - done
    final = recipe.final_learning_rate_fraction
    return peak * (final + (1 - final) * kept)
