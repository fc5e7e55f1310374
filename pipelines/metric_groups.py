"""The groups in which metrics are shown, declared by the forms of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

GROUPS = {
    "loss": r"(.*_)?(loss|perplexity|bits_per_byte|cross_entropy)",
    "memory": r"memory_.*_bytes",
    "traffic": r"sent_bytes_.*",
    "speed": r".*_per_second|seconds_.*|.*_seconds|tflops_.*|.*_utilisation",
    "optimizer": r"learning_rate|gradient_norm|batch_size",
}

# Of a step with many metrics, those that are shown first: by form, in this order.
LEADING = (
    "validation_loss",
    "loss",
    "bits_per_byte",
    "perplexity",
    "tokens_per_second",
    "seconds_per_step",
    "memory_process_peak_bytes",
    "model_flops_utilisation",
)
MOST_LEADING = 6


def leading(names: Iterable[str], headline: str | None) -> list[str]:
    """At most six metrics that matter: the headline, those of `LEADING`, then those of no group or of losses."""
    names = list(names)
    plain = [name for name in names if "/" not in name and group_of(name) in ("", "loss")]
    wanted = [*([headline] if headline else []), *LEADING, *plain]
    return [name for name in dict.fromkeys(wanted) if name in names][:MOST_LEADING]


def group_of(name: str) -> str:
    """The group of a metric: what its name states before the last "/", else by its form; "" for none of these."""
    stated = name.rpartition("/")[0]
    return stated or next((group for group, form in GROUPS.items() if re.fullmatch(form, name)), "")


def grouped(name: str) -> str:
    """The name of a metric with its group before it: "memory/memory_weights_bytes". MLflow's pages fold by it."""
    group = group_of(name)
    return name if "/" in name or not group else f"{group}/{name}"
