"""Measured landscapes of this project as problems of benchmarks/exploration.py.

`debug_pretraining.csv`: the validation loss of `pipeline=debug` after its 20 steps of training, by sequence length (the
context), learning rate and batch size. It was measured by

    bloomline run --multirun pipeline=debug until=pretrain cluster=inline steps.pretrain.ranks=1 \\
        steps.pretrain.sequence_length=16,32,64 steps.pretrain.learning_rate=1e-3,3e-3,1e-2,3e-2,1e-1 \\
        steps.pretrain.global_batch_size=4,16 sweep.objective=steps.pretrain.validation_loss
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np

from stages.exploration.problems import Problem, table

DATA = Path(__file__).with_name("data")


def debug_pretraining() -> Problem:
    """The negated loss; learning rates, batches and sequence lengths on logarithmic scales."""
    with (DATA / "debug_pretraining.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {
        tuple(float(row[name]) for name in ("sequence_length", "learning_rate", "global_batch_size")): -float(
            row["validation_loss"]
        )
        for row in rows
    }
    lengths, rates, batches = (sorted({key[place] for key in measured}) for place in range(3))
    actions = list(product(rates, batches))
    values = np.array([[measured[length, *action] for action in actions] for length in lengths])
    return table("debug_pretraining", np.log2(np.array(lengths))[:, None], np.log(np.array(actions)), values)


TABLES: Mapping[str, Callable[[], Problem]] = {"debug_pretraining": debug_pretraining}
