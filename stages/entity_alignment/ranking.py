"""The ranks of the counterparts of linked entities under CSLS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages import csls
from stages.csls import Array, Rows


@dataclass(frozen=True)
class Ranks:
    """The ranks of the n true counterparts, from 1, in both directions [n]. Ties share the mean of their ranks."""

    forward: Array  # of the right entity among all right ones, for each left one
    backward: Array


@dataclass(frozen=True)
class Found:
    """The ranks of n pairs, and the densities that they are computed with."""

    ranks: Ranks
    densities: tuple[Array, Array]  # of the left and of the right vectors [n]


def found(left: Rows, right: Rows, neighbours: int) -> Found:
    """The ranks of n pairs: row i of `left` belongs to row i of `right`, and every row is a candidate.

    `neighbours` is k of CSLS; 0: cosine.
    """
    of_left, of_right = csls.densities(left, right, neighbours)
    pairs = np.repeat(np.arange(len(left))[:, None], 2, axis=1)
    forward = csls.ranks(left, right, of_left, of_right, pairs)
    backward = csls.ranks(right, left, of_right, of_left, pairs)
    return Found(Ranks(forward, backward), (of_left, of_right))


def ranks(left: Rows, right: Rows, neighbours: int) -> Ranks:
    """The ranks of n pairs, as `found` has them."""
    return found(left, right, neighbours).ranks
