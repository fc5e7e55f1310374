"""The groups in which metrics are shown, declared by the forms of their names."""

from __future__ import annotations

import re

GROUPS = {
    "loss": r"(.*_)?(loss|perplexity|bits_per_byte|cross_entropy)",
    "memory": r"memory_.*_bytes",
    "traffic": r"sent_bytes_.*",
    "speed": r".*_per_second|seconds_.*|.*_seconds|tflops_.*|.*_utilisation",
    "optimizer": r"learning_rate|gradient_norm|batch_size",
}


def group_of(name: str) -> str:
    """The group of a metric: what its name states before the last "/", else by its form; "" for none of these."""
    stated = name.rpartition("/")[0]
    return stated or next((group for group, form in GROUPS.items() if re.fullmatch(form, name)), "")


def grouped(name: str) -> str:
    """The name of a metric with its group before it: "memory/memory_weights_bytes". MLflow's pages fold by it."""
    group = group_of(name)
    return name if "/" in name or not group else f"{group}/{name}"
