"""Splits links into training, validation and test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stages.base import StageError
from stages.entity_alignment.graphs import SPLITS, Ints, Pair


def random_split(pair: Pair, train_share: float, validation_share: float, seed: int) -> Pair:
    """A random share of the links for training, of which a share is for validation; the others are for the test.

    The files of DBP15K list links in an order that says something of them, so they are always shuffled.
    """
    order = np.random.default_rng(seed).permutation(len(pair.links))
    seeds = round(train_share * len(order))
    return _assigned(pair, order[:seeds], order[seeds:], validation_share)


def fixed_split(pair: Pair, given: Ints, validation_share: float, seed: int) -> Pair:
    """The splits that the files give, `given` [links]. Where they give no validation, it is taken from the training."""
    if (given == SPLITS.index("validation")).any():
        return replace(pair, splits=given)
    order = np.random.default_rng(seed).permutation(len(pair.links))
    train = given[order] == SPLITS.index("train")
    return _assigned(pair, order[train], order[~train], validation_share)


def _assigned(pair: Pair, seeds: Ints, test: Ints, validation_share: float) -> Pair:
    validation = round(validation_share * len(seeds))
    splits = np.empty(len(pair.links), np.int64)
    splits[seeds], splits[test] = SPLITS.index("train"), SPLITS.index("test")
    splits[seeds[:validation]] = SPLITS.index("validation")
    if not len(pair.links):
        raise StageError("the two graphs have no links; expected some to train and to test on")
    if len(seeds) - validation < 2:
        raise StageError(
            f"{len(seeds)} of {len(pair.links)} links are seeds, of which {validation} validate: expected two or more "
            "to train on. Raise train_share, or lower validation_share"
        )
    return replace(pair, splits=splits)
