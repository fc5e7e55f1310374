"""The learning rate, as a pure function of the step and the samples taken."""

from __future__ import annotations

import math
from bisect import bisect_left

from stages.training.recipe import Recipe


def stable_steps(recipe: Recipe) -> int:
    """The steps before the decay of a warmup_stable_decay schedule: up to there it is the schedule of a run with any
    larger number of steps."""
    if recipe.decay_steps is None:
        return recipe.warmup_steps
    ramp, full = recipe.batch_size_ramp, recipe.global_batch_size
    if ramp is None:
        return recipe.steps - recipe.decay_steps
    start = ramp.taken(recipe.steps, full) - recipe.decay_steps * full
    return bisect_left(range(recipe.steps), start, key=lambda steps: ramp.taken(steps, full))


def learning_rate(recipe: Recipe, step: int, samples: int) -> float:
    """The learning rate of optimizer step `step` (from 0), which follows `samples` samples.

    A linear warm-up reaches the peak at step `warmup_steps`. Then, by schedule:

    - constant: the peak;
    - cosine (Loshchilov and Hutter, arXiv 1608.03983) or linear: down to `final_learning_rate_fraction` of the peak
      over `decay_steps`;
    - warmup_stable_decay (arXiv 2404.06395): the peak until `decay_steps` before the end, then linear.

    The last step of the decay is the first one at the final value. With a batch size ramp, warm-up and decay are over
    samples, as in BLOOM and Megatron: a step counts as the fraction of a full step that its batch is, and
    `warmup_steps` and `decay_steps` are steps of the full size.
    """
    peak, ramp, full = recipe.learning_rate, recipe.batch_size_ramp, recipe.global_batch_size
    done_before: float = step
    size: float = 1
    end: float = recipe.steps
    if ramp:
        done_before, size = samples / full, ramp.size(samples, full) / full
        end = ramp.taken(recipe.steps, full) / full
    if done_before < recipe.warmup_steps:
        return peak * (done_before + size) / (recipe.warmup_steps + 1)
    if recipe.schedule == "constant":
        return peak
    decay_steps = recipe.decay_steps or end - recipe.warmup_steps
    start = end - decay_steps if recipe.schedule == "warmup_stable_decay" else recipe.warmup_steps
    done = min(max(done_before - start, 0) / max(decay_steps - 1, 1), 1.0)
    kept = 0.5 * (1 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1 - done
    final = recipe.final_learning_rate_fraction
    return peak * (final + (1 - final) * kept)
