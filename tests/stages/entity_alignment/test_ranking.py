"""The ranks of the counterparts, in both directions."""

from __future__ import annotations

import numpy as np

from stages.entity_alignment.ranking import found, ranks


def test_each_direction_has_its_own_candidates() -> None:
    left = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    right = np.array([[0.8, 0.6], [0, 1], [0, 1]], np.float32)
    result = found(left, right, 0)
    assert result.ranks.forward.tolist() == [1, 1.5, 2.5]  # the last two right vectors are the same
    assert result.ranks.backward.tolist() == [2, 1, 2]
    assert not any(one.any() for one in result.densities)


def test_a_hub_loses_under_csls() -> None:
    angles = {"left": (40.0, 50.0, 120.0), "right": (45.0, 56.0, 130.0)}  # degrees; the first right one is near to two
    left, right = (
        np.stack([np.cos(np.deg2rad(one)), np.sin(np.deg2rad(one))], axis=1).astype(np.float64)
        for one in (angles["left"], angles["right"])
    )
    cosines = left @ right.T
    of_left, of_right = np.sort(cosines, axis=1)[:, -2:].mean(axis=1), np.sort(cosines, axis=0)[-2:].mean(axis=0)
    dense = 2 * cosines - of_left[:, None] - of_right
    expected = 1 + (dense > dense.diagonal()[:, None]).sum(axis=1)
    assert ranks(left, right, 2).forward.tolist() == expected.tolist()
    assert ranks(left, right, 0).forward.tolist() != expected.tolist(), "CSLS changes the order here"
